// Programs with a fault that only a job of several ranks can have; a test looks at how they end.
//   broken_program hang|hang_messages|hang_control|mismatch
#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "meshard/collectives/mpi.h"

using namespace meshard;

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  std::string fault = argc > 1 ? argv[1] : "";
  int rank = 0, size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  auto comm = mpi_communicator(nullptr, {.shared_memory = fault != "hang_messages", .timeout_seconds = 0.5});
  Mesh mesh = Mesh::parse("model=" + std::to_string(size));
  Group group(mesh, mesh.all(), static_cast<Rank>(rank));
  std::vector<float> x(100, 1.0f);
  CollectiveCall up = {.kind = Collective::all_reduce,
                       .group = &group,
                       .send = x.data(),
                       .receive = x.data(),
                       .send_elements = 100,
                       .label = "block.7.up"};
  CollectiveCall down = up;
  down.label = "block.7.down";
  comm->run(up);
  if (fault == "mismatch") {
    if (rank == 1) {
      down.kind = Collective::broadcast;
      down.label = "block.8.up";
    }
    try {
      comm->run(down);
    } catch (const InternalError& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::fflush(stderr);
      MPI_Abort(MPI_COMM_WORLD, 3);
    }
  } else {
    // Rank 1 does not come.
    if (rank == 1) sleep(20);
    if (fault == "hang_control") comm->barrier();
    comm->run(down);
  }
  comm.reset();
  MPI_Finalize();
  return 0;
}
