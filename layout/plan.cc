#include "meshard/layout/plan.h"
