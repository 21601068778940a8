#include "meshard/layout/reshard.h"
