#include "meshard/base/text.h"
