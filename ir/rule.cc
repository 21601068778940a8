#include "meshard/ir/rule.h"
