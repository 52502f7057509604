#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "file_support.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/idx_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::string word(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string image_file(std::uint32_t count, std::uint32_t side = 28) {
  std::string bytes = word(2051) + word(count) + word(side) + word(side);
  Random random(count);
  for (std::uint32_t i = 0; i < count * side * side; ++i) bytes += static_cast<char>(random());
  return bytes;
}

std::string label_file(std::string labels) {
  return word(2049) + word(static_cast<std::uint32_t>(labels.size())) + labels;
}

class Idx : public FolderTest {
 protected:
  /// A complete small data set, to be damaged by the test.
  void write_mnist() {
    write_file("train-images-idx3-ubyte", image_file(3));
    write_file("train-labels-idx1-ubyte", label_file({0, 9, 5}));
    write_file("t10k-images-idx3-ubyte.gz", gzip(image_file(2)));
    write_file("t10k-labels-idx1-ubyte.xz", xz(label_file({1, 2})));
  }
};

TEST_F(Idx, ReadsPlainGzipAndXzAlike) {
  const std::string bytes = image_file(7);
  const IdxArray plain = read_idx(write_file("a", bytes), 3);
  EXPECT_EQ(plain.sizes, (std::vector<std::uint32_t>{7, 28, 28}));
  ASSERT_EQ(plain.bytes.size(), 7u * image_pixels);
  EXPECT_TRUE(std::equal(plain.bytes.begin(), plain.bytes.end(),
                         reinterpret_cast<const std::uint8_t*>(bytes.data()) + 16));
  EXPECT_EQ(read_idx(write_file("b", gzip(bytes)), 3).bytes, plain.bytes);
  EXPECT_EQ(read_idx(write_file("c", xz(bytes)), 3).bytes, plain.bytes);
}

TEST_F(Idx, MissingFileIsNamed) {
  expect_refused([&] { read_idx(folder_ / "none", 3); }, Code::not_found, HasSubstr("none"));
}

TEST_F(Idx, WrongMagicIsRefusedWithBothNumbers) {
  expect_refused([&] { read_idx(write_file("labels", label_file({1})), 3); }, Code::bad_data,
                 AllOf(HasSubstr("labels"), HasSubstr("2049"), HasSubstr("2051")));
}

TEST_F(Idx, EveryTruncationIsRefused) {
  const std::string bytes = image_file(1);
  for (const std::string& file : {bytes, gzip(bytes), xz(bytes)}) {
    for (std::size_t length = 0; length < file.size(); length += length < 40 ? 1 : 37) {
      SCOPED_TRACE(length);
      expect_refused([&] { read_idx(write_file("cut", file.substr(0, length)), 3); },
                     Code::bad_data, HasSubstr("cut"));
    }
  }
}

TEST_F(Idx, SurplusBytesAreRefused) {
  expect_refused([&] { read_idx(write_file("long", image_file(1) + "x"), 3); }, Code::bad_data,
                 HasSubstr("more than"));
}

TEST_F(Idx, DamagedCompressedDataAreRefused) {
  const std::string bytes = image_file(4);
  for (std::string file : {gzip(bytes), xz(bytes)}) {
    file[file.size() / 2] = static_cast<char>(file[file.size() / 2] ^ 0x10);
    expect_refused([&] { read_idx(write_file("bad", file), 3); }, Code::bad_data, HasSubstr("bad"));
  }
}

TEST_F(Idx, LengthsInTheHeaderAreNotTrusted) {
  const std::string huge = word(0xffffffff);
  expect_refused([&] { read_idx(write_file("huge", word(2051) + huge + huge + huge), 3); },
                 Code::bad_data, HasSubstr("claims more than"));
  expect_refused([&] { read_idx(write_file("big", word(2049) + word(1u << 30) + "abc"), 1); },
                 Code::bad_data, HasSubstr("it holds 3"));
}

TEST_F(Idx, ReadsTheFourFilesOfMnist) {
  write_mnist();
  const ImageData data = read_mnist(folder_);
  EXPECT_EQ(data.train.labels, (std::vector<std::uint8_t>{0, 9, 5}));
  EXPECT_EQ(data.test.labels, (std::vector<std::uint8_t>{1, 2}));
  EXPECT_EQ(data.test.pixels.size(), 2 * image_pixels);
}

TEST_F(Idx, AMissingMnistFileIsNamed) {
  write_mnist();
  fs::remove(folder_ / "t10k-labels-idx1-ubyte.xz");
  expect_refused([&] { read_mnist(folder_); }, Code::not_found,
                 AllOf(HasSubstr("t10k-labels-idx1-ubyte"), HasSubstr(folder_.string())));
  expect_refused([&] { read_mnist(folder_ / "nowhere"); }, Code::not_found, HasSubstr("nowhere"));
}

TEST_F(Idx, ImagesAndLabelsMustMatch) {
  write_mnist();
  write_file("train-labels-idx1-ubyte", label_file({0, 9}));
  expect_refused([&] { read_mnist(folder_); }, Code::bad_data, HasSubstr("2 labels for 3 images"));
  write_file("train-labels-idx1-ubyte", label_file({}));
  write_file("train-images-idx3-ubyte", image_file(0));
  expect_refused([&] { read_mnist(folder_); }, Code::bad_data, HasSubstr("0 labels for 0 images"));
}

TEST_F(Idx, LabelsAboveNineAreRefused) {
  write_mnist();
  write_file("train-labels-idx1-ubyte", label_file({0, 10, 5}));
  expect_refused([&] { read_mnist(folder_); }, Code::bad_data, HasSubstr("label 10"));
}

TEST_F(Idx, OtherImageSizesAreRefused) {
  write_mnist();
  write_file("train-images-idx3-ubyte", image_file(3, 20));
  expect_refused([&] { read_mnist(folder_); }, Code::bad_data, HasSubstr("20x20"));
}

TEST(IdxReal, ReadsMnist) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with mnist/";
  const ImageData data = read_mnist(fs::path(folder) / "mnist");
  EXPECT_EQ(data.train.size(), 60000u);
  EXPECT_EQ(data.test.size(), 10000u);
  EXPECT_EQ(std::ranges::count(data.test.labels, 1), 1135);
}

}  // namespace
}  // namespace slip
