#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "file_support.h"
#include "slipstream/trainer/tasks/libsvm_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class Libsvm : public FolderTest {
 protected:
  SparseData read(const std::string& train, const std::string& test) const {
    return read_libsvm({write_file("train", train), write_file("test", test)});
  }

  void expect_damage(const std::string& train, const std::string& says) const {
    SCOPED_TRACE(train.substr(0, 100));
    expect_refused([&] { read(train, "1\n"); }, Code::bad_data,
                   AllOf(HasSubstr(folder_ / "train"), HasSubstr(says)));
  }
};

TEST_F(Libsvm, RowsAreCompressed) {
  const SparseData data = read("+1 1:0.5 3:-2e-1\n-1\n-1 2:+4 7:1\n", "-1 9:1\n");
  EXPECT_EQ(data.features, 9u);
  EXPECT_THAT(data.train.begin, ElementsAre(0, 2, 2, 4));
  EXPECT_THAT(data.train.columns, ElementsAre(0, 2, 1, 6));
  EXPECT_THAT(data.train.values, ElementsAre(0.5F, -0.2F, 4, 1));
  EXPECT_THAT(data.train.labels, ElementsAre(1, 0, 0));
  EXPECT_THAT(data.test.columns, ElementsAre(8));
  EXPECT_THAT(data.test.labels, ElementsAre(0));
}

TEST_F(Libsvm, AnyTwoLabelsAreTheClassesAndTheGreaterIsPositive) {
  for (const auto& [negative, positive] : {std::pair{"-1", "+1"}, {"0", "1"}, {"1", "2"}}) {
    const SparseData data = read(std::string(positive) + " 1:1\n" + negative + " 1:2\n" + positive,
                                 std::string(negative) + "\n");
    EXPECT_THAT(data.train.labels, ElementsAre(1, 0, 1)) << negative;
    EXPECT_THAT(data.test.labels, ElementsAre(0)) << negative;
  }
}

TEST_F(Libsvm, BlanksAndEndsOfLinesMayDiffer) {
  const SparseData data = read("1\t1:1  2:1 \r\n0 1:3\r\n0  2:5", "0");
  EXPECT_THAT(data.train.begin, ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(data.train.values, ElementsAre(1, 1, 3, 5));
}

TEST_F(Libsvm, ReadsPlainGzipAndXzAlike) {
  // Longer than what is read at once, so that lines are cut.
  std::string text;
  while (text.size() < 3'000'000) {
    text += text.size() % 3 == 0 ? "1" : "0";
    for (int index = 1; index < 50; ++index) {
      text += " " + std::to_string(index) + ":" + std::to_string(text.size() % 1000);
    }
    text += "\n";
  }
  const SparseData plain = read(text, "0\n");
  EXPECT_EQ(plain.train.size(), static_cast<std::size_t>(std::ranges::count(text, '\n')));
  EXPECT_EQ(plain.train.columns.size(), plain.train.size() * 49);
  for (const std::string& bytes : {gzip(text), xz(text)}) {
    const SparseData unpacked = read(bytes, "0\n");
    EXPECT_EQ(unpacked.train.values, plain.train.values);
    EXPECT_EQ(unpacked.train.labels, plain.train.labels);
  }
}

TEST_F(Libsvm, DamageIsNamedWithItsLine) {
  expect_damage("", ": it is empty");
  expect_damage("\n1 1:1\n", ":1: no label");
  expect_damage("1 1:1\n\n0 1:1\n", ":2: no label");
  expect_damage("1 1:1\nyes 1:1\n", ":2: 'yes' is no label");
  expect_damage("1 1:1\n0,1 1:1\n", ":2: '0,1' is no label");
  expect_damage("1 1:1\nnan 1:1\n", ":2: 'nan' is no label");
  expect_damage("1 1:1\n0 1:1\n2 1:1\n", ":3: label 2 beside 1 and 0");
  expect_damage("1 1:1\n1 2:1\n", ": all of its 2 labels are 1");
  expect_damage("1 1:1\n0 3:1 2:1\n", ":2: index 2 after 3");
  expect_damage("1 1:1\n0 3:1 3:1\n", ":2: index 3 after 3");
  expect_damage("1 0:1\n", ":1: index '0'; allowed are 1 to 100000000");
  expect_damage("1 100000001:1\n", ":1: index '100000001'");
  expect_damage("1 99999999999999999999999:1\n", ":1: index '99999999999999999999999'");
  expect_damage("1 -1:1\n", ":1: '-1:1' is not INDEX:VALUE");
  expect_damage("1 1:nan\n", ":1: '1:nan' has no finite number");
  expect_damage("1 1:-inf\n", ":1: '1:-inf' has no finite number");
  expect_damage("1 1:1e39\n", ":1: '1:1e39' has no finite number");
  expect_damage("1 1:\n", ":1: '1:' has no finite number");
  expect_damage("1 1:1x\n", ":1: '1:1x' has no finite number");
  expect_damage("1 1:1:1\n", ":1: '1:1:1' has no finite number");
  expect_damage("1 1\n", ":1: '1' is not INDEX:VALUE");
  expect_damage("1 :1\n", ":1: ':1' is not INDEX:VALUE");
  expect_damage("1 qid:7 1:1\n", ":1: 'qid:7' is not INDEX:VALUE");
  expect_damage("1 1:1 # rubbish\n", ":1: '#' is not INDEX:VALUE");
  expect_damage("1 1:1 " + std::string(100, 'x') + "\n",
                "'" + std::string(40, 'x') + "...' is not INDEX:VALUE");
  expect_damage(std::string("1 \0:1\n", 6), ":1: '?:1' is not INDEX:VALUE");
}

TEST_F(Libsvm, ALineWithoutAnEndIsNotReadForever) {
  expect_damage("1 1:1\n0 " + std::string(70'000'000, ' ') + "1:1\n", ":2: it is longer than");
}

TEST_F(Libsvm, ATestFileHasTheLabelsOfItsTrainingFile) {
  expect_refused([&] { read("1 1:1\n0 1:1\n", "0\n-1\n"); }, Code::bad_data,
                 AllOf(HasSubstr(folder_ / "test"), HasSubstr(":2: label -1 beside 1 and 0")));
  expect_refused([&] { read("1 1:1\n0 1:1\n", ""); }, Code::bad_data,
                 AllOf(HasSubstr(folder_ / "test"), HasSubstr("it is empty")));
}

TEST_F(Libsvm, EveryTruncationOfPackedDataIsRefused) {
  const std::string text = "1 1:0.25 3:1\n0 2:1\n1 5:0.125\n";
  for (const std::string& file : {gzip(text), xz(text)}) {
    for (std::size_t length = 0; length < file.size(); ++length) {
      SCOPED_TRACE(length);
      expect_refused([&] { read(file.substr(0, length), "0\n"); }, Code::bad_data,
                     HasSubstr(folder_ / "train"));
    }
  }
}

TEST_F(Libsvm, MissingFilesAndFoldersAreNamed) {
  expect_refused([&] { read_libsvm({folder_ / "none", {}}); }, Code::not_found, HasSubstr("none"));
  expect_refused([&] { read_libsvm({folder_, {}}); }, Code::bad_data, HasSubstr("folder"));
}

TEST_F(Libsvm, AFifthIsHeldOutWhereThereIsNoTestFile) {
  std::string text;
  for (int i = 1; i <= 103; ++i) {
    text += (i % 2 == 0 ? "1 1:" : "0 1:") + std::to_string(i) + "\n";
  }
  const SparseData data = read_libsvm({write_file("all", text), {}});
  EXPECT_EQ(data.test.size(), 20u);
  EXPECT_EQ(data.train.size(), 83u);
  EXPECT_EQ(read_libsvm({write_file("all", text), {}}).test.values, data.test.values);
  EXPECT_FALSE(std::ranges::is_sorted(data.test.values)) << "drawn, not cut off";
  std::vector<float> all = data.train.values;
  all.insert(all.end(), data.test.values.begin(), data.test.values.end());
  std::ranges::sort(all);
  ASSERT_EQ(all.size(), 103u);
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], static_cast<float>(i + 1));
  const auto agree = [](const SparseSet& set) {
    for (std::size_t row = 0; row < set.size(); ++row) {
      EXPECT_EQ(set.labels[row], 1 - static_cast<int>(set.values[row]) % 2);
    }
  };
  agree(data.train);
  agree(data.test);
  expect_refused(
      [&] {
        read_libsvm({write_file("few", "1\n0\n1\n0\n"), {}});
      },
      Code::bad_data, HasSubstr("out of 4 rows"));
}

TEST_F(Libsvm, TheTestFileBesideItIsFound) {
  const auto beside = [&](const char* name) {
    return libsvm_files((folder_ / name).string()).test.filename();
  };
  write_file("a.gz", "");
  EXPECT_EQ(beside("a.gz"), "");
  write_file("a.t.xz", "");
  EXPECT_EQ(beside("a.gz"), "a.t.xz");
  EXPECT_EQ(beside("a"), "a.t.xz");
  write_file("a.t", "");
  EXPECT_EQ(beside("a.gz"), "a.t");
  write_file("r.tst.gz", "");
  EXPECT_EQ(beside("r.trn.xz"), "r.tst.gz");
  EXPECT_EQ(beside("r.trn"), "r.tst.gz");
}

TEST_F(Libsvm, SettingsNameBothFiles) {
  const LibsvmFiles files = libsvm_files("test=b,train=a");
  EXPECT_EQ(files.train, "a");
  EXPECT_EQ(files.test, "b");
  for (const auto& [settings, says] :
       {std::pair{"", "allowed are libsvm:FILE"},
        {"train=a", "train=FILE,test=FILE"},
        {"test=a", "train=FILE,test=FILE"},
        {"train=a,test=", "train=FILE,test=FILE"},
        {"train=a,test=b,dim=3", "'dim'; allowed are train, test"}}) {
    expect_refused([&] { libsvm_files(settings); }, Code::invalid_argument, HasSubstr(says));
  }
}

TEST(LibsvmReal, ReadsPublishedFiles) {
  const char* folder = std::getenv("SLIP_TEST_DATA");
  if (folder == nullptr) GTEST_SKIP() << "SLIP_TEST_DATA does not name a folder with libsvm/";
  const struct {
    const char* file;
    std::uint32_t features;
    std::size_t train, test;
  } sets[] = {{"a9a.gz", 123, 32561, 16281},
              {"w8a.gz", 300, 39800, 9949},
              {"reuters.trn.xz", 8315, 7770, 3299}};
  for (const auto& set : sets) {
    const SparseData data =
        read_libsvm(libsvm_files((fs::path(folder) / "libsvm" / set.file).string()));
    EXPECT_EQ(data.features, set.features) << set.file;
    EXPECT_EQ(data.train.size(), set.train) << set.file;
    EXPECT_EQ(data.test.size(), set.test) << set.file;
  }
}

}  // namespace
}  // namespace slip
