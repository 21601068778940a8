#include "meshard/collectives/communicator.h"
