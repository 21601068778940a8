#include "meshard/collectives/lockstep.h"
