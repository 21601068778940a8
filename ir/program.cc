#include "meshard/ir/program.h"
