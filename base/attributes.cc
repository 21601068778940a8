#include "meshard/base/attributes.h"
