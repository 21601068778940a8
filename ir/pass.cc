#include "meshard/ir/pass.h"
