#include "meshard/ir/parse.h"
