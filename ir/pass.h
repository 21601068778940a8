// Passes are functions Program -> Program. The runner times them, verifies what they leave, can check that the text
// prints and parses back to itself, and writes each stage to a folder.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "meshard/ir/verify.h"

namespace meshard {

struct Pass {
  std::string name;  // a verb: "propagate"
  Level leaves = Level::traced;
  std::function<Program(Program)> run;
};

struct PassOptions {
  bool reparse = false;           // print, parse, print again and compare (debug builds, tests)
  std::string dump;               // folder: 00-trace.mesh, 01-propagate.mesh ...; "" for none
  std::vector<std::string> skip;  // names
  bool verify = true;             // false: for programs made op by op while a user waits, of passes that are held elsewhere
};

struct PassTime {
  std::string name;  // of the pass; at the end "verify", what checking their results took together
  double seconds = 0;
};

Program run_passes(Program program, const std::vector<Pass>& passes, const PassOptions& options,
                   std::vector<PassTime>* times = nullptr);

}  // namespace meshard
