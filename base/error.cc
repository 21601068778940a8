#include "meshard/base/error.h"
