#include "meshard/layout/layout.h"
