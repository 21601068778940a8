#include "meshard/layout/block.h"
