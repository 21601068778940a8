// All that must hold of a program, checked at once.
#pragma once

#include <string>

#include "meshard/runtime/simulate.h"

namespace meshard::fuzz {

struct Verdict {
  enum Kind {
    good,
    refused,    // a UserError: the layouts or the program can't be
    amplified,  // results differ, but so they do when the inputs change by a rounding error
    broken,     // an InternalError or any other exception
    text,       // what prints does not parse to the same
    erased,     // the local program without layouts and collectives is another one
    values,     // split and whole differ
    replicas,
    bytes,
    memory,
    twin        // the executor on one device and the interpreter differ
  } kind = good;
  std::string message;
  bool rings = false;  // a product was made round a ring of devices

  bool failed() const { return kind > amplified; }
  std::string str() const;
};

// Prints, parses, compiles for the program's mesh, runs whole and in lockstep, and compares.
Verdict check_program(const Program& program, const CheckOptions& data);

}  // namespace meshard::fuzz
