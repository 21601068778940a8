#include "meshard/mesh/group.h"
