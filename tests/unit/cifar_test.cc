#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "file_support.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/cifar_internal.h"
#include "slipstream/trainer/tasks/model_internal.h"
#include "slipstream/trainer/tasks/task.h"

namespace slip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using Vector = std::vector<float>;

constexpr std::size_t record = 3073;

/// Images of random pixels, of the classes 0, 1, 2, ...
std::string batch_file(int images, std::uint64_t seed) {
  Random random(seed);
  std::string bytes;
  for (int i = 0; i < images; ++i) {
    bytes += static_cast<char>(i % 10);
    for (std::size_t p = 1; p < record; ++p) bytes += static_cast<char>(random());
  }
  return bytes;
}

class Cifar : public FolderTest {
 protected:
  /// A complete small data set, to be damaged by the test.
  Cifar() {
    for (int batch = 1; batch <= 5; ++batch) {
      write_file(name(batch), batch_file(4, static_cast<std::uint64_t>(batch)));
    }
    write_file("test_batch.bin", batch_file(7, 6));
  }
  static std::string name(int batch) { return "data_batch_" + std::to_string(batch) + ".bin"; }
};

TEST_F(Cifar, ReadsAllBatchesInTheirOrder) {
  const ImageData data = read_cifar10(folder_);
  EXPECT_EQ(data.shape, colour_images);
  ASSERT_EQ(data.train.size(), 20u);
  EXPECT_EQ(data.test.size(), 7u);
  ASSERT_EQ(data.train.pixels.size(), 20 * 3072u);
  const std::string third = batch_file(4, 3);
  EXPECT_EQ(data.train.labels[9], third[record]);
  EXPECT_EQ(data.train.pixels[9 * 3072], static_cast<std::uint8_t>(third[record + 1]));
  EXPECT_EQ(data.train.pixels[10 * 3072 - 1], static_cast<std::uint8_t>(third[2 * record - 1]));
}

TEST_F(Cifar, PlainGzipAndXzFilesHoldTheSame) {
  const ImageData plain = read_cifar10(folder_);
  fs::remove(folder_ / name(2));
  write_file(name(2) + ".gz", gzip(batch_file(4, 2)));
  fs::remove(folder_ / name(4));
  write_file(name(4) + ".xz", xz(batch_file(4, 4)));
  EXPECT_EQ(read_cifar10(folder_).train.pixels, plain.train.pixels);
}

TEST_F(Cifar, DamagedFilesAreRefusedWithTheirNameAndWhatIsWrong) {
  const auto refused = [&](const std::string& why) {
    expect_refused([&] { read_cifar10(folder_); }, Code::bad_data,
                   AllOf(HasSubstr("data_batch_3.bin"), HasSubstr(why)));
  };
  std::string bytes = batch_file(4, 3);
  write_file(name(3), bytes.substr(0, bytes.size() - 1));
  refused("truncated: its image 3 has 3072 bytes of 3073");
  write_file(name(3), "");
  refused("truncated: its image 0 has 0 bytes");
  bytes[2 * record] = 10;
  write_file(name(3), bytes);
  refused("image 2 has the label 10");
  const std::string packed_bytes = gzip(batch_file(4, 3));
  write_file(name(3), packed_bytes.substr(0, packed_bytes.size() / 2));
  refused("damaged");
}

TEST_F(Cifar, MissingFilesAreNamed) {
  fs::remove(folder_ / "test_batch.bin");
  expect_refused([&] { read_cifar10(folder_); }, Code::not_found,
                 AllOf(HasSubstr("test_batch.bin"), HasSubstr("data_batch_1.bin to")));
}

TEST(CifarReal, ReadsCifar10) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with cifar10/";
  const ImageData data = read_cifar10(fs::path(folder) / "cifar10");
  EXPECT_EQ(data.train.size(), 50000u);
  EXPECT_EQ(data.test.size(), 10000u);
  EXPECT_EQ(std::ranges::count(data.test.labels, 3), 1000);
}

// ---- Models of colour images.

ConstVectorView read(const Vector& x) { return view(std::span(x)); }
VectorView write(Vector& x) { return view(std::span(x)); }

class ColourModels : public Cifar {
 protected:
  void SetUp() override {
    if (!have_models()) GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  }
  TaskOptions options(const std::string& model) const {
    TaskOptions options;
    options.task = "cifar10:" + folder_.string();
    options.model = model;
    options.batch = 2;
    return options;
  }
};

TEST_F(ColourModels, HaveThePapersNumbersOfParameters) {
  EXPECT_EQ(make_task(options(""))->model(), "gn_lenet");
  EXPECT_EQ(make_task(options("gn_lenet"))->parameter_count(), 89'834u);
  EXPECT_EQ(make_task(options("vgg11"))->parameter_count(), 9'750'922u);
}

TEST_F(ColourModels, GradientsAreTheDerivativesOfTheLoss) {
  for (const char* model : {"softmax", "mlp", "lenet", "gn_lenet", "vgg11"}) {
    const auto task = make_task(options(model));
    Vector x(task->parameter_count()), g(x.size()), unused(x.size());
    task->initialise(write(x));
    EXPECT_GT(task->gradient(read(x), 3, write(g)), 0) << model;
    const double length = std::sqrt(std::inner_product(g.begin(), g.end(), g.begin(), 0.0));
    ASSERT_GT(length, 0) << model;
    constexpr double step = 2e-3;
    Vector up = x, down = x;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const auto move = static_cast<float>(step * static_cast<double>(g[i]) / length);
      up[i] += move;
      down[i] -= move;
    }
    const double slope = (task->gradient(read(up), 3, write(unused)) -
                          task->gradient(read(down), 3, write(unused))) /
                         (2 * step);
    EXPECT_NEAR(slope, length, 0.05 * length) << model;
  }
}

TEST_F(ColourModels, NormalisationsBeginAsTheIdentity) {
  const auto task = make_task(options("gn_lenet"));
  Vector x(task->parameter_count());
  task->initialise(write(x));
  // Behind the first convolution's 3 x 32 x 25 weights and 32 biases: factors, then biases.
  const auto begin = x.begin() + 2432;
  EXPECT_EQ(std::count(begin, begin + 32, 1.0F), 32);
  EXPECT_EQ(std::count(begin + 32, begin + 64, 0.0F), 32);
}

TEST_F(ColourModels, EvaluationLooksAtAsManyImagesAsItIsTold) {
  TaskOptions few = options("softmax");
  const auto all = make_task(few);
  few.evaluate_samples = 1;
  const auto one = make_task(few);
  few.evaluate_samples = 1000;
  const auto more = make_task(few);
  Vector x(all->parameter_count());
  all->initialise(write(x));
  EXPECT_EQ(more->evaluate(read(x)).loss, all->evaluate(read(x)).loss);
  EXPECT_NE(one->evaluate(read(x)).loss, all->evaluate(read(x)).loss);
  const double accuracy = one->evaluate(read(x)).accuracy.value();
  EXPECT_TRUE(accuracy == 0 || accuracy == 1);
}

TEST(ColourModelNames, Vgg11IsForColourImagesOnly) {
  if (!have_models()) GTEST_SKIP() << "this build has no LibTorch (package libtorch-dev)";
  TaskOptions options;
  options.model = "vgg11";
  expect_refused([&] { make_task(options); }, Code::invalid_argument,
                 HasSubstr("are softmax, mlp, lenet, gn_lenet"));
}

}  // namespace
}  // namespace slip
