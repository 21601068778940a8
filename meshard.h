// All that a program needs to describe a model, lay it out on a mesh, and train it: see tests/install/train_mlp.cc.
#pragma once

#include "meshard/autodiff/differentiate.h"
#include "meshard/collectives/lockstep.h"
#include "meshard/collectives/mpi.h"
#include "meshard/models/layers.h"
#include "meshard/models/model.h"
#include "meshard/models/optimizer.h"
#include "meshard/models/plans.h"
#include "meshard/models/train_step.h"
#include "meshard/ops/functions.h"
#include "meshard/ops/table.h"
#include "meshard/runtime/compile.h"
#include "meshard/runtime/dtensor_functions.h"
#include "meshard/runtime/explained.h"
#include "meshard/runtime/session.h"
#include "meshard/sharding/diff_bills.h"
#include "meshard/sharding/expect_bill.h"
