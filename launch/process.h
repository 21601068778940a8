// MPI's start and end, for Job alone. Built without MPI, process_none.cc answers.
#pragma once

namespace meshard {

void process_start(int* argc, char*** argv);
void process_end();

}  // namespace meshard
