#include "meshard/mesh/mesh.h"
