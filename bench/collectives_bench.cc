// How fast the MPI communicator moves bytes, beside the MPI library's own collectives and a plain memory copy, in one
// run:
//   mpirun -n 4 --oversubscribe collectives_bench [--json FILE] [--least BYTES] [--most BYTES]
// GB/s are bus bandwidths, as nccl-tests counts them: of a value of n bytes, all_reduce moves 2 (p-1)/p n, the others
// (p-1)/p n a rank. "of copy" is this beside a plain copy (memcpy) of n bytes by all ranks at once. "of bound" is the time that
// this copy would need for the bytes which a rank cannot but read and write, beside the call's: n and n for an all_reduce, n and
// n/p for a reduce_scatter, (p-1)/p n twice for what changes place, and n/p twice more where the own part changes place too. In
// "in place" rows what a rank keeps of its own already stands in its result, as executors have it where they can. Values are in
// buffers of the library. The ways take turns, so that a slow moment of the machine meets all of them; the best turn of each is
// shown.
#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "meshard/base/buffer.h"
#include "meshard/collectives/mpi.h"

using namespace meshard;

namespace {

struct Row {
  std::string name;
  Collective kind;
  int64_t bytes;
  double shared, messages, mpi;  // seconds of a call, the slowest rank's
};

double seconds_of(const std::function<void()>& call, int repeats) {
  MPI_Barrier(MPI_COMM_WORLD);
  double begin = MPI_Wtime();
  for (int i = 0; i < repeats; ++i) call();
  double mine = (MPI_Wtime() - begin) / repeats, slowest = 0;
  MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return slowest;
}

// Of a value of one byte, what a rank must read and write, beside the two bytes of a copy.
double touched(Collective kind, bool in_place, int p) {
  switch (kind) {
    case Collective::reduce_scatter: return (1 + 1.0 / p) / 2;
    case Collective::all_gather:
    case Collective::all_to_all: return in_place ? 1 - 1.0 / p : 1;
    default: return 1;
  }
}

double best(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, p = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &p);
  std::string json;
  int64_t least = 64, most = 64 << 20;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::string_view(argv[i]) == "--json") json = argv[i + 1];
    if (std::string_view(argv[i]) == "--least") least = std::stoll(argv[i + 1]);
    if (std::string_view(argv[i]) == "--most") most = std::stoll(argv[i + 1]);
  }
  std::vector<Row> rows;
  {
    auto shared = mpi_communicator(nullptr);
    auto messages = mpi_communicator(nullptr, {.shared_memory = false});
    Mesh mesh = Mesh::parse(fmt::format("ranks={}", p));
    Group group(mesh, mesh.all(), static_cast<Rank>(rank));
    for (int64_t bytes : {64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20}) {
      if (bytes < least || bytes > most) continue;
      int64_t block = std::max<int64_t>(bytes / 4 / p, 1), n = block * p;
      const Buffer send(n * 4), receive(n * 4);
      float *a = reinterpret_cast<float*>(send.data()), *b = reinterpret_cast<float*>(receive.data());
      std::fill_n(a, n, 1.0f);
      std::fill_n(b, n, 0.0f);  // zeros stay zeros, in place too
      std::vector<int64_t> counts(static_cast<size_t>(p), block);
      int count = static_cast<int>(n), part = static_cast<int>(block);
      struct Way {
        std::string name;
        Collective kind;
        const float* send;
        float* receive;
        std::function<void()> mpi;
      };
      float *part_of_a = a + rank * block, *part_of_b = b + rank * block;
      const Way ways[] = {
          {"all_reduce", Collective::all_reduce, a, b,
           [&] { MPI_Allreduce(a, b, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
          {"  in place", Collective::all_reduce, b, b,
           [&] { MPI_Allreduce(MPI_IN_PLACE, b, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
          {"reduce_scatter", Collective::reduce_scatter, a, b,
           [&] { MPI_Reduce_scatter_block(a, b, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
          {"  in place", Collective::reduce_scatter, b, part_of_b,
           [&] { MPI_Reduce_scatter_block(MPI_IN_PLACE, b, part, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
          {"all_gather", Collective::all_gather, part_of_a, b,
           [&] { MPI_Allgather(part_of_a, part, MPI_FLOAT, b, part, MPI_FLOAT, MPI_COMM_WORLD); }},
          {"  in place", Collective::all_gather, part_of_b, b,
           [&] { MPI_Allgather(MPI_IN_PLACE, part, MPI_FLOAT, b, part, MPI_FLOAT, MPI_COMM_WORLD); }},
          {"all_to_all", Collective::all_to_all, a, b,
           [&] { MPI_Alltoall(a, part, MPI_FLOAT, b, part, MPI_FLOAT, MPI_COMM_WORLD); }},
      };
      int repeats = static_cast<int>(std::clamp<int64_t>((4 << 20) / bytes, 1, 1000)),
          turns = bytes >= 16 << 20 ? 5 : 9;
      for (const Way& way : ways) {
        CollectiveCall call = {.kind = way.kind,
                               .group = &group,
                               .send = way.send,
                               .receive = way.receive,
                               .send_elements = way.kind == Collective::all_reduce ? n : 0,
                               .counts = counts,
                               .send_counts = counts,
                               .label = "bench"};
        std::vector<double> times[3];
        for (int turn = -1; turn < turns; ++turn) {
          double t[3] = {seconds_of([&] { shared->run(call); }, repeats),
                         seconds_of([&] { messages->run(call); }, repeats), seconds_of(way.mpi, repeats)};
          for (int i = 0; turn >= 0 && i < 3; ++i) times[i].push_back(t[i]);  // the first turn warms up
        }
        rows.push_back({way.name, way.kind, n * 4, best(times[0]), best(times[1]), best(times[2])});
      }
      std::vector<double> times;
      for (int turn = 0; turn < turns; ++turn) {
        times.push_back(seconds_of([&] { std::memcpy(b, a, static_cast<size_t>(n) * 4); }, repeats));
      }
      // Read as all_gather is: the bytes of p - 1 blocks are copied in the time that this share of a copy takes.
      double copy = best(times);
      rows.push_back({"copy", Collective::slice, n * 4, copy, copy, copy});
    }
  }
  if (rank == 0) {
    fmt::print("{} ranks\n{:<15}{:>10}{:>12}{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}\n", p, "kind", "bytes", "shared us", "messages us",
               "MPI us", "GB/s", "of copy", "of bound", "x MPI");
    std::string text = fmt::format("{{\"ranks\": {}, \"rows\": [", p);
    double copy = 0;
    std::string kind;
    for (size_t i = 0; i < rows.size(); ++i) {
      const Row& r = rows[i];
      if (r.name[0] != ' ') kind = r.name;
      // The copy of a size is measured after its calls.
      for (size_t k = i; k < rows.size() && copy == 0; ++k) {
        if (rows[k].kind == Collective::slice) copy = static_cast<double>(rows[k].bytes) / rows[k].shared;
      }
      double factor = r.kind == Collective::slice ? 1 : (r.kind == Collective::all_reduce ? 2.0 : 1.0) * (p - 1) / p;
      double moved = static_cast<double>(r.bytes) * factor;
      const double bound = touched(r.kind, r.name[0] == ' ', p) * static_cast<double>(r.bytes) / copy / r.shared;
      fmt::print("{:<15}{:>10}{:>12.2f}{:>12.2f}{:>12.2f}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}\n", r.name, r.bytes, r.shared * 1e6,
                 r.messages * 1e6, r.mpi * 1e6, moved / r.shared / 1e9, moved / r.shared / copy, bound, r.mpi / r.shared);
      text += fmt::format(
          "{}\n{{\"kind\": \"{}\", \"in_place\": {}, \"bytes\": {}, \"shared_s\": {}, \"messages_s\": {}, \"mpi_s\": {}, "
          "\"gb_per_s\": {}, \"of_bound\": {}}}",
          i == 0 ? "" : ",", kind, r.name[0] == ' ', r.bytes, r.shared, r.messages, r.mpi, moved / r.shared / 1e9, bound);
      if (r.kind == Collective::slice) copy = 0;
    }
    if (!json.empty()) {
      std::FILE* file = std::fopen(json.c_str(), "w");
      if (file == nullptr) {
        fmt::print(stderr, "cannot write {}\n", json);
        MPI_Abort(MPI_COMM_WORLD, 2);
      }
      fmt::print(file, "{}\n]}}\n", text);
      std::fclose(file);
    }
  }
  MPI_Finalize();
  return 0;
}
