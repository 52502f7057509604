// Whatever stands in a file, its reader reads it or says what is wrong.

#include "slipstream/trainer/files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "file_support.h"
#include "mutation.h"
#include "slipstream/trainer/checkpoint.h"
#include "slipstream/trainer/graph.h"
#include "slipstream/trainer/heterogeneity.h"
#include "slipstream/trainer/report.h"
#include "slipstream/trainer/tasks/cifar_internal.h"
#include "slipstream/trainer/tasks/idx_internal.h"
#include "slipstream/trainer/tasks/libsvm_internal.h"
#include "slipstream/trainer/tasks/movielens_internal.h"

namespace slip {
namespace {

using testing::read_mutations;

class FuzzFiles : public FolderTest {
 protected:
  /// A new file each time, since some file systems write a truncated one to the disk at once.
  std::filesystem::path write(const std::string& name, const std::string& bytes) const {
    std::filesystem::remove(folder_ / name);
    return write_file(name, bytes);
  }
};

TEST_F(FuzzFiles, Checkpoints) {
  const std::filesystem::path file = folder_ / "checkpoint";
  Checkpoint checkpoint{.count = 3, .iteration = 7, .seed = 1, .workers = 2};
  checkpoint.parameters.resize(12);
  checkpoint.velocities = {Checkpoint::Vector(12), Checkpoint::Vector(12)};
  write_checkpoint(checkpoint, file);
  read_mutations({read_file(file)}, [&](const std::string& bytes) {
    EXPECT_EQ(read_checkpoint(write("mutation", bytes)).count, 3u);
  });
}

TEST_F(FuzzFiles, Reports) {
  Report report;
  report.protocol = "hop";
  report.workers = 2;
  report.options = {{"max_gap", "5"}};
  report.iterations = {10, 9};
  report.final = {0.5, 0.9};
  report.target = {"accuracy", 0.9, 1.5};
  report.per_worker.resize(2);
  report.curve.resize(3);
  write_report(report, folder_ / "report");
  read_mutations({read_file(folder_ / "report")},
                 [](const std::string& json) { report_from_json(json, "a report"); });
}

TEST_F(FuzzFiles, Graphs) {
  read_mutations({"0 1\n1 2\n2 0\n", "# weighted\n0 1 0.5\n1 2 0.5\n2 0 0.5\n"},
                 [&](const std::string& text) { Graph::from_file(write("graph", text), 3); });
}

TEST_F(FuzzFiles, Links) {
  read_mutations({"0 1 rate=60mbit,latency=1ms\n1 0 rate=1gbit\n"},
                 [&](const std::string& text) { read_links(write("links", text), 2); });
}

TEST_F(FuzzFiles, Idx) {
  const std::string header("\0\0\x08\x03\0\0\0\x02\0\0\0\x04\0\0\0\x03", 16);
  const std::string plain = header + std::string(24, 'x');
  read_mutations({plain, gzip(plain), xz(plain)}, [&](const std::string& bytes) {
    const IdxArray array = read_idx(write("idx", bytes), 3);
    EXPECT_EQ(array.bytes.size(), std::size_t{array.sizes[0]} * array.sizes[1] * array.sizes[2]);
  });
}

TEST_F(FuzzFiles, Cifar) {
  const std::string record = '\x03' + std::string(3072, 'x');
  for (int i = 1; i <= 5; ++i) write("data_batch_" + std::to_string(i) + ".bin", record);
  write("test_batch.bin", record);
  read_mutations({record, record + record}, [&](const std::string& bytes) {
    write("data_batch_2.bin", bytes);
    for (const int label : read_cifar10(folder_).train.labels) EXPECT_LT(label, 10);
  });
}

TEST_F(FuzzFiles, Libsvm) {
  const std::string text = "+1 1:0.5 3:1\n-1 2:1e-3\n+1 7:2\n-1 1:1 2:2 3:3\n+1 5:1\n";
  read_mutations({text, gzip(text), xz(text)}, [&](const std::string& bytes) {
    const SparseData data = read_libsvm({write("rows", bytes), {}});
    ASSERT_EQ(data.train.begin.size(), data.train.size() + 1);
    for (const std::uint32_t column : data.train.columns) EXPECT_LT(column, data.features);
  });
}

TEST_F(FuzzFiles, Movielens) {
  const std::string rows = "1\t7\t5\t881250949\n2\t7\t3\t891717742\n1\t9\t1\t878887116\n";
  write("u1.test", rows);
  read_mutations({rows}, [&](const std::string& bytes) {
    write("u1.base", bytes);
    const RatingData data = read_movielens(folder_);
    for (const std::uint32_t user : data.train.users) EXPECT_LT(user, data.users);
    for (const std::uint32_t item : data.train.items) EXPECT_LT(item, data.items);
  });
}

}  // namespace
}  // namespace slip
