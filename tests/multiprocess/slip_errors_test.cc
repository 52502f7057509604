// Bad input, lost or disagreeing peers and machines that are too small: one clear line and an exit
// code, never a hang or a crash.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "reserved_port.h"
#include "slip_program.h"

namespace slip {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

void expect_one_line(const Outcome& outcome, int status, const std::vector<std::string>& parts) {
  EXPECT_EQ(outcome.end.status, status) << outcome.end.describe() << ": " << outcome.error;
  EXPECT_EQ(outcome.end.signal, 0) << outcome.error;
  EXPECT_TRUE(is_one_line(outcome.error)) << outcome.error;
  for (const std::string& part : parts) EXPECT_THAT(outcome.error, HasSubstr(part));
}

constexpr const char* no_models = "built without LibTorch, which tasks with data need";

// ---- Usage: exit 2.

struct Usage {
  std::vector<std::string> arguments;
  std::vector<std::string> says;
};

class BadUsage : public testing::TestWithParam<Usage> {};

TEST_P(BadUsage, IsOneLineThatNamesItAndWhatIsAllowed) {
  for (const std::string& argument : GetParam().arguments) {
    if (!SLIP_HAVE_TORCH && argument.starts_with("mnist:")) GTEST_SKIP() << no_models;
  }
  expect_one_line(run_slip(GetParam().arguments), 2, GetParam().says);
}

INSTANTIATE_TEST_SUITE_P(
    Slip, BadUsage,
    testing::ValuesIn(std::vector<Usage>{
        {{}, {"no command", "train"}},
        {{"tarin"}, {"'tarin'", "train"}},
        {{"train", "--bogus", "1"}, {"'--bogus'", "--task"}},
        {{"train", "--workers", "0"}, {"--workers", "from 1"}},
        {{"train", "--workers", "many"}, {"--workers is 'many'", "from 1"}},
        {{"train", "--seconds", "-1"}, {"--seconds", "above 0"}},
        {{"train", "--protocol", "hopp"}, {"'hopp'", "did you mean 'hop'?"}},
        {{"train", "--graph", "rinng"}, {"'rinng'", "ring-based"}},
        {{"train", "--task", "digit"}, {"'digit'", "digits, mnist:DIR"}},
        {{"train", "--model", "mlpp"}, {"'mlpp'", "softmax, mlp, lenet"}},
        {{"train", "--task", "libsvm:x", "--model", "mlp"}, {"'mlp'", "svm, logistic"}},
        {{"train", "--task", "targets", "--model", "mlp"}, {"'mlp'", "has no models"}},
        {{"train", "--task", "libsvm:nowhere"}, {"--task: nowhere", "no such file"}},
        {{"train", "--task", "libsvm:train=a"}, {"train=FILE,test=FILE"}},
        {{"train", "--set", "hop.bakcup=1"}, {"bakcup", "did you mean 'backup'?"}},
        {{"train", "--set", "backup=x"}, {"--set backup is 'x'", "from 0"}},
        {{"train", "--task", "targets", "--set", "backup=1", "--set", "staleness=1"},
         {"backup and staleness"}},
        {{"train", "--task", "targets", "--compute", "10parsec"}, {"'10parsec'", "such as 10ms"}},
        {{"train", "--task", "targets", "--slow", "rank=1,x=4"}, {"--slow needs --compute"}},
        {{"train", "--task", "targets", "--protocol", "hop", "--drop", "p=0.1"},
         {"hop", "tolerates loss"}},
        {{"train", "--transport", "foo"}, {"'foo'", "shm"}},
        {{"train", "--task", "mnist:nowhere"}, {"nowhere", "four IDX files"}},
        {{"train", "--task", "consensus:dim=10000000000"}, {"10000000000", "1e+09"}},
        {{"train", "--report", "nowhere/report.json"},
         {"--report nowhere/report.json", "writable"}},
        {{"train", "--task", "targets", "--resume", "nowhere"},
         {"--resume", "nowhere", "no such file"}},
        {{"train", "--config", "nowhere.toml"}, {"nowhere.toml", "no such file"}},
        {{"train", "--config", "/"}, {"Is a directory"}},
        {{"train", "--rank", "1"}, {"--rank needs --rendezvous"}},
        {{"train", "--rendezvous", "nonsense", "--rank", "0", "--workers", "2"},
         {"--rendezvous: 'nonsense'", "HOST:PORT"}},
        {{"train", "--rendezvous", "127.0.0.1:4000", "--rank", "2", "--workers", "2"},
         {"--rank is 2", "0 to 1"}},
        {{"run", "-n", "2"}, {"no program"}},
        {{"run", "-n", "2", "--", "no-such-program"}, {"cannot start 'no-such-program'"}},
    }),
    [](const auto& info) { return fmt::format("case_{}", info.index); });

/// A file in a folder that is gone at the end of the test.
class SlipFiles : public testing::Test {
 protected:
  SlipFiles() {
    std::string name = testing::TempDir() + "slip-files-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw_errno("mkdtemp");
    folder_ = name;
  }
  ~SlipFiles() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& content) const {
    const std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  std::filesystem::path folder_;
};

TEST_F(SlipFiles, AnInvalidTomlFileIsNamedWithLineAndReason) {
  expect_one_line(run_slip({"train", "--config", write("a.toml", "workers = 4\nseed = \n")}), 2,
                  {"a.toml:2:", "not TOML"});
  expect_one_line(run_slip({"train", "--config", write("b.toml", "workers = 4\nsed = 1\n")}), 2,
                  {"b.toml:2:", "did you mean 'seed'?"});
  expect_one_line(run_slip({"train", "--config", write("c.toml", "\nworkers = 0\n")}), 2,
                  {"c.toml:2:", "from 1"});
}

// ---- Files that are damaged: exit 1.

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(value >> shift));
  return bytes;
}

std::string idx(std::uint32_t magic, const std::vector<std::uint32_t>& sizes, std::size_t bytes) {
  std::string file = big_endian(magic);
  for (const std::uint32_t size : sizes) file += big_endian(size);
  return file + std::string(bytes, '\1');
}

std::string images(std::uint32_t count) { return idx(0x803, {count, 28, 28}, count * 28 * 28); }
std::string labels(std::uint32_t count) { return idx(0x801, {count}, count); }

TEST_F(SlipFiles, DamagedDataAreNamed) {
  if (!SLIP_HAVE_TORCH) GTEST_SKIP() << no_models;
  const std::string good = images(4);
  struct Damage {
    std::string train_images;
    std::string says;
  };
  write("train-labels-idx1-ubyte", labels(4));
  write("t10k-images-idx3-ubyte", images(2));
  write("t10k-labels-idx1-ubyte", labels(2));
  for (const Damage& damage : {Damage{good.substr(0, good.size() / 2), "truncated"},
                               {good.substr(0, 7), "truncated"},
                               {"", "truncated"},
                               {good + "more", "more than"},
                               {idx(0x803, {0xffffffff, 28, 28}, 100), "claims more"},
                               {idx(0x999, {4, 28, 28}, 4 * 28 * 28), "magic number"},
                               {idx(0x803, {4, 28, 27}, 4 * 28 * 27), "28x27"},
                               {images(5), "4 labels for 5 images"},
                               {"\x1f\x8b gzip it is not", "damaged"}}) {
    write("train-images-idx3-ubyte", damage.train_images);
    expect_one_line(run_slip({"train", "--workers", "2", "--task", "mnist:" + folder_.string()}), 1,
                    {folder_.string(), damage.says});
  }
}

TEST_F(SlipFiles, DamagedRowsAreNamedWithTheirLine) {
  const std::string file = write("rows", "1 1:1 2:1\n0 2:1 1:1\n");
  expect_one_line(run_slip({"train", "--workers", "2", "--task", "libsvm:" + file}), 1,
                  {file + ":2: index 1 after 2"});
}

TEST_F(SlipFiles, ADamagedCheckpointIsNotResumedFrom) {
  const std::vector<std::string> run = {"train", "--task",       "targets", "--workers",
                                        "2",     "--iterations", "5"};
  const std::string saved = folder_ / "saved";
  ASSERT_TRUE(run_slip(run + std::vector<std::string>{"--save", saved}).end.ok());
  std::ifstream file(saved, std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), {}};
  ASSERT_GT(good.size(), 8U);
  std::string flipped = good;
  flipped.back() = static_cast<char>(flipped.back() ^ 1);
  for (const std::string& bad :
       {std::string("garbage"), good.substr(0, good.size() - 3), flipped}) {
    expect_one_line(run_slip(run + std::vector<std::string>{"--resume", write("bad", bad)}), 1,
                    {"bad: ", "cannot be resumed from"});
  }
}

TEST(SlipErrors, AReportThatCannotBeWrittenFailsTheRun) {
  const Outcome outcome = run_slip({"train", "--task", "targets", "--workers", "2", "--iterations",
                                    "5", "--report", "/dev/full"});
  expect_one_line(outcome, 1, {"/dev/full", "No space left"});
}

// ---- Machines that are too small.

TEST(SlipErrors, MoreMemoryThanThereIsIsRefusedBeforeTheRun) {
  expect_one_line(run_slip({"train", "--task", "consensus:dim=1000000000", "--workers", "64",
                            "--set", "max_gap=50"}),
                  1, {"of which this machine has", "fewer workers"});
}

TEST(SlipErrors, MemoryThatALimitRefusesIsOneLine) {
  if (sanitized) GTEST_SKIP() << "sanitizers reserve more addresses than the limit allows";
  const std::vector<std::string> limited = {"sh", "-c", "ulimit -v 600000; exec \"$@\"", "sh"};
  for (const char* transport : {"shm", "threads"}) {
    SlipProgram slip(limited, {"train", "--task", "consensus:dim=30000000", "--workers", "4",
                               "--transport", transport, "--iterations", "5"});
    expect_one_line(slip.wait(), 1, {"memory"});
    EXPECT_THAT(slip.processes_left(), IsEmpty());
  }
}

TEST(SlipErrors, MoreThreadsThanALimitAllowsIsOneLine) {
  if (sanitized) GTEST_SKIP() << "sanitizers reserve more addresses than the limit allows";
  SlipProgram slip({"sh", "-c", "ulimit -v 400000; exec \"$@\"", "sh"},
                   {"train", "--task", "targets", "--workers", "100", "--transport", "threads"});
  expect_one_line(slip.wait(), 1, {"cannot start worker", "fewer workers"});
}

TEST(SlipErrors, TooFewDescriptorsAreOneLine) {
  if (sanitized) GTEST_SKIP() << "sanitizers need descriptors of their own";
  SlipProgram slip({"sh", "-c", "ulimit -n 12; exec \"$@\"", "sh"},
                   {"train", "--task", "targets", "--workers", "4", "--iterations", "5"});
  expect_one_line(slip.wait(), 1, {"Too many open files"});
  EXPECT_THAT(slip.processes_left(), IsEmpty());
}

TEST(SlipErrors, AFullSharedMemoryFileSystemDoesNotMatter) {
  const std::vector<std::string> full = {
      "unshare",
      "-m",
      "sh",
      "-c",
      "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && "
      "exec \"$@\"",
      "sh"};
  SlipProgram probe(full, {"--version"});
  if (!probe.wait().end.ok()) GTEST_SKIP() << "no mount namespace of one's own: not root";
  SlipProgram slip(full, {"train", "--task", "targets", "--workers", "4", "--iterations", "20"});
  const Outcome outcome = slip.wait();
  EXPECT_TRUE(outcome.end.ok()) << outcome.error;
  EXPECT_EQ(outcome.error, "");
}

// ---- Workers that are started by hand.

class Rendezvous : public testing::Test {
 protected:
  std::vector<std::string> worker(int rank, int workers,
                                  const std::vector<std::string>& more = {}) const {
    return std::vector<std::string>{"train",
                                    "--rendezvous",
                                    fmt::format("127.0.0.1:{}", port_.number()),
                                    "--rank",
                                    std::to_string(rank),
                                    "--workers",
                                    std::to_string(workers),
                                    "--task",
                                    "targets"} +
           more;
  }

  const ReservedPort port_;
};

const std::vector<std::string> short_run = {"--iterations", "20"};
const std::vector<std::string> long_run = {"--compute", "20ms", "--iterations", "1000"};

TEST_F(Rendezvous, WorkersThatWereStartedByHandTrainTogether) {
  SlipProgram second(worker(1, 2, short_run));  // also when the server comes later
  SlipProgram first(worker(0, 2, short_run));
  for (SlipProgram* slip : {&first, &second}) {
    const Outcome outcome = slip->wait();
    EXPECT_TRUE(outcome.end.ok()) << outcome.error;
    EXPECT_EQ(outcome.error, "");
  }
}

TEST_F(Rendezvous, NobodyAnswers) {
  SlipProgram alone({"env", "SLIP_JOIN_TIMEOUT=1"}, worker(1, 2));
  const std::string where = fmt::format("rendezvous 127.0.0.1:{}: ", port_.number());
  expect_one_line(alone.wait(), 1, {where, "nobody answered", "start rank 0 there"});
}

TEST_F(Rendezvous, WorkersThatDisagreeNameBothRanksAndValuesOnBothSides) {
  struct Case {
    std::vector<std::string> first, second;
    std::vector<std::string> says;
  };
  const std::vector<Case> cases = {
      {{"--set", "max_gap=5"},
       {"--set", "max_gap=3"},
       {"rank 1 has max_gap=3", "rank 0 has max_gap=5"}},
      // What only some would send at the end, the others would wait for.
      {{"--record-parameters"}, {}, {"rank 1 has record-parameters=false", "=true"}},
      {{"--html", testing::TempDir() + "never.html"}, {}, {"rank 1 has trace or html=false"}},
  };
  for (const Case& c : cases) {
    SlipProgram first(worker(0, 2, short_run + c.first));
    SlipProgram second(worker(1, 2, short_run + c.second));
    for (SlipProgram* slip : {&first, &second}) expect_one_line(slip->wait(), 1, c.says);
  }
}

TEST_F(Rendezvous, WorkersThatDisagreeAboutHowManyTheyAreAreNamed) {
  SlipProgram first(worker(0, 2, short_run));
  SlipProgram wrong(worker(1, 3, short_run));
  expect_one_line(wrong.wait(), 1, {"rank 1 wants a world of 3", "this one has 2"});
  SlipProgram second(worker(1, 2, short_run));
  EXPECT_TRUE(second.wait().end.ok());
  EXPECT_TRUE(first.wait().end.ok());
}

TEST_F(Rendezvous, TheSecondOfARankIsRefusedAndTheOthersGoOn) {
  SlipProgram first(worker(0, 3, short_run));
  SlipProgram a(worker(1, 3, short_run));
  SlipProgram b(worker(1, 3, short_run));
  // Nothing is complete before rank 2 is there, so one of the two has been refused by now.
  pollfd ends[] = {{a.pidfd(), POLLIN, 0}, {b.pidfd(), POLLIN, 0}};
  ASSERT_EQ(poll(ends, 2, poll_milliseconds(deadline_after(hang))), 1);
  SlipProgram& refused = ends[0].revents != 0 ? a : b;
  SlipProgram& accepted = ends[0].revents != 0 ? b : a;
  expect_one_line(refused.wait(), 1, {"rank 1 has joined already", "a rank of its own"});
  SlipProgram third(worker(2, 3, short_run));
  for (SlipProgram* slip : {&first, &accepted, &third}) EXPECT_TRUE(slip->wait().end.ok());
}

TEST_F(Rendezvous, ASecondRankZeroIsToldThatThePlaceIsTaken) {
  SlipProgram first(worker(0, 2, long_run));
  SlipProgram second(worker(1, 2, long_run));
  ASSERT_TRUE(first.wait_for_output("iteration "));
  first.signal(SIGSTOP);  // it stays however long this takes
  expect_one_line(run_slip(worker(0, 2)), 1, {"Address already in use", "choose another port"});
}

TEST_F(Rendezvous, ALostPeerIsNamedByTheOther) {
  for (const int lost : {0, 1}) {
    SlipProgram first(worker(0, 2, long_run));
    SlipProgram second(worker(1, 2, long_run));
    ASSERT_TRUE(first.wait_for_output("iteration "));
    (lost == 0 ? first : second).signal(SIGKILL);
    expect_one_line((lost == 0 ? second : first).wait(), 1, {fmt::format("rank {}", lost)});
  }
}

}  // namespace
}  // namespace slip
