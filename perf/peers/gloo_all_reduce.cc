// slip_peer_gloo SIZE ITERATIONS: all-reduce of float vectors of SIZE bytes by two processes, over
// Gloo's tcp transport (the only one it has). Prints the mean and the median of the microseconds
// that rank 0 took.

#include <gloo/allreduce.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

void sum(void* out, const void* a, const void* b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    static_cast<float*>(out)[i] = static_cast<const float*>(a)[i] + static_cast<const float*>(b)[i];
  }
}

std::vector<double> run(int rank, std::size_t size, int iterations, const std::string& store) {
  auto context = std::make_shared<gloo::rendezvous::Context>(rank, 2);
  gloo::transport::tcp::attr attributes;
  attributes.hostname = "127.0.0.1";
  gloo::rendezvous::FileStore files(store);
  auto device = gloo::transport::tcp::CreateDevice(attributes);
  context->connectFullMesh(files, device);
  std::vector<float> vector(size / sizeof(float), 0);
  gloo::AllreduceOptions options(context);
  options.setOutput(vector.data(), vector.size());
  options.setReduceFunction(gloo::AllreduceOptions::Func(&sum));
  std::vector<double> times;
  for (int k = -(iterations / 10 + 1); k < iterations; ++k) {
    const auto start = Clock::now();
    gloo::allreduce(options);
    const std::chrono::duration<double, std::micro> time = Clock::now() - start;
    if (k >= 0) times.push_back(time.count());
  }
  return times;
}

}  // namespace

int main(int argc, char** argv) {
  const long size = argc == 3 ? std::atol(argv[1]) : 0;
  const int iterations = argc == 3 ? std::atoi(argv[2]) : 0;
  if (size < static_cast<long>(sizeof(float)) || iterations < 1) {
    std::fprintf(stderr, "usage: slip_peer_gloo SIZE ITERATIONS\n");
    return 2;
  }
  std::string store = (std::filesystem::temp_directory_path() / "slip-gloo-XXXXXX").string();
  if (mkdtemp(store.data()) == nullptr) return 1;
  const pid_t child = fork();
  if (child < 0) return 1;
  if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto times = run(child == 0 ? 1 : 0, static_cast<std::size_t>(size), iterations, store);
  if (child == 0) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  std::filesystem::remove_all(store);
  const double mean =
      std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
  std::nth_element(times.begin(), times.begin() + static_cast<long>(times.size() / 2), times.end());
  std::printf("%.6f %.6f\n", mean, times[times.size() / 2]);
  return status == 0 ? 0 : 1;
}
