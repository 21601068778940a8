// Catch2 on every rank of a job; MPI is started once for all tests.
#include <mpi.h>

#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int status = Catch::Session().run(argc, argv);
  MPI_Finalize();
  return status;
}
