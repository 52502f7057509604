#include "slipstream/runtime/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace slip {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

enum class Order { parallel, serial };

struct Sample {
  int max_gap = 5;
  std::optional<int> staleness;
  double lr = 0.5;
  bool tokens = true;
  Order order = Order::parallel;
  std::string policy = "abort";
  std::uint64_t seed = 1;
  std::vector<std::string> slow;
  std::string task = "digits";
};

Options describe(Sample& sample) {
  return Options()
      .add("max_gap", sample.max_gap, "iterations a sender may be ahead", Range::between(1, 100))
      .add("staleness", sample.staleness, "how old an update may be", Range::at_least(0))
      .add("lr", sample.lr, "learning rate", Range::above(0))
      .add("tokens", sample.tokens, "whether tokens are used")
      .add("order", sample.order, {"parallel", "serial"}, "when the gradient is applied")
      .add("policy", sample.policy, {"abort", "carry"}, "what becomes of late work")
      .add("seed", sample.seed, "of all draws")
      .add("slow", sample.slow, "slow workers")
      .add("task", sample.task, "what is learned");
}

// The message of the Error that `set` throws, empty if it throws none.
std::string refusal(Options options, const std::string& name, const std::string& text,
                    const std::string& shown_as = "") {
  try {
    options.set(name, text, shown_as);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_argument);
    EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
    return error.what();
  }
  return "";
}

TEST(Options, SetsFieldsOfEveryType) {
  Sample sample;
  Options options = describe(sample);
  options.set("max_gap", "7");
  options.set("staleness", "3");
  options.set("lr", "1e-3");
  options.set("tokens", "false");
  options.set("order", "serial");
  options.set("policy", "carry");
  options.set("seed", "18446744073709551615");
  options.set("slow", "rank=3,x=4  random,x=6,p=1/n");
  options.set("task", "quadratic:dim=10");
  EXPECT_EQ(sample.max_gap, 7);
  EXPECT_EQ(sample.staleness, 3);
  EXPECT_EQ(sample.lr, 1e-3);
  EXPECT_FALSE(sample.tokens);
  EXPECT_EQ(sample.order, Order::serial);
  EXPECT_EQ(sample.policy, "carry");
  EXPECT_EQ(sample.seed, ~std::uint64_t{0});
  EXPECT_THAT(sample.slow, ElementsAre("rank=3,x=4", "random,x=6,p=1/n"));
  EXPECT_EQ(sample.task, "quadratic:dim=10");
}

TEST(Options, EntriesAreResolvedValuesInOrderAndReadBackToThemselves) {
  Sample sample;
  Options options = describe(sample);
  options.set("slow", "a b");
  options.set("lr", "0.1");
  const auto entries = options.entries();
  EXPECT_THAT(entries, ElementsAre(Pair("max_gap", "5"), Pair("staleness", "none"),
                                   Pair("lr", "0.1"), Pair("tokens", "true"),
                                   Pair("order", "parallel"), Pair("policy", "abort"),
                                   Pair("seed", "1"), Pair("slow", "a b"), Pair("task", "digits")));
  Sample other;
  Options others = describe(other);
  for (const auto& [name, text] : entries) others.set(name, text);
  EXPECT_EQ(others.entries(), entries);
}

TEST(Options, NoneEmptiesAnOptionalAndNothingElse) {
  Sample sample;
  Options options = describe(sample);
  options.set("staleness", "2");
  options.set("staleness", "none");
  EXPECT_EQ(sample.staleness, std::nullopt);
  EXPECT_THAT(refusal(options, "max_gap", "none"), HasSubstr("max_gap is 'none'"));
}

TEST(Options, RefusalsNameTheOptionAndWhatIsAllowedAndKeepTheValue) {
  Sample sample;
  const Options options = describe(sample);
  EXPECT_EQ(refusal(options, "max_gap", "0"), "max_gap is '0'; allowed are integers from 1 to 100");
  EXPECT_EQ(refusal(options, "staleness", "-1"),
            "staleness is '-1'; allowed are integers from 0, none");
  EXPECT_EQ(refusal(options, "lr", "0"), "lr is '0'; allowed are numbers above 0");
  EXPECT_EQ(refusal(options, "tokens", "maybe"),
            "tokens is 'maybe'; allowed are true, false, on, off");
  EXPECT_EQ(refusal(options, "order", "1"), "order is '1'; allowed are parallel, serial");
  EXPECT_EQ(refusal(options, "policy", ""), "policy is ''; allowed are abort, carry");
  EXPECT_EQ(refusal(options, "lr", "x", "SLIP_LR"), "SLIP_LR is 'x'; allowed are numbers above 0");
  EXPECT_EQ(sample.max_gap, 5);
  EXPECT_EQ(sample.lr, 0.5);
  EXPECT_EQ(sample.order, Order::parallel);
}

TEST(Options, NumbersAreReadWholeOrNotAtAll) {
  Sample sample;
  const Options options = describe(sample);
  for (const char* text :
       {"", " 7", "7 ", "7x", "0x7", "+7", "7.0", "1e1", "99999999999999999999"}) {
    EXPECT_NE(refusal(options, "max_gap", text), "") << "'" << text << "'";
  }
  for (const char* text : {"", "1,5", "nan", "inf", "-inf", "1e999", "0.5s"}) {
    EXPECT_NE(refusal(options, "lr", text), "") << "'" << text << "'";
  }
  for (const char* text : {"-1", "18446744073709551616", "1.5"}) {
    EXPECT_NE(refusal(options, "seed", text), "") << "'" << text << "'";
  }
  EXPECT_EQ(sample.max_gap, 5);
}

TEST(Options, UnknownNamesAreRefusedWithTheNearest) {
  Sample sample;
  const Options options = describe(sample);
  EXPECT_THAT(refusal(options, "max_gpa", "1"),
              AllOf(HasSubstr("unknown option 'max_gpa'"), HasSubstr("did you mean 'max_gap'?")));
  EXPECT_THAT(refusal(options, "backup", "1"),
              AllOf(HasSubstr("unknown option 'backup'; allowed are max_gap, staleness, lr"),
                    Not(HasSubstr("did you mean"))));
}

TEST(Options, ANameIsAddedOnce) {
  int a = 0, b = 0;
  Options options;
  options.add("a", a, "first");
  EXPECT_THROW(options.add("a", b, "second"), Error);
}

TEST(Options, RemovedOptionsAreUnknown) {
  Sample sample;
  Options options = describe(sample);
  options.remove({"seed", "order", "nosuch"});
  EXPECT_EQ(options.find("seed"), nullptr);
  EXPECT_THAT(refusal(options, "order", "serial"), HasSubstr("unknown option 'order'"));
  options.set("max_gap", "3");
  EXPECT_EQ(sample.max_gap, 3);
}

TEST(Options, HelpTellsNameValueMeaningAndRangeOfEach) {
  Sample sample;
  const std::string help = describe(sample).help();
  EXPECT_THAT(help, HasSubstr("max_gap=5"));
  EXPECT_THAT(help, HasSubstr("iterations a sender may be ahead (integers from 1 to 100)"));
  EXPECT_THAT(help, HasSubstr("(parallel, serial)"));
  EXPECT_EQ(std::count(help.begin(), help.end(), '\n'), 9);
}

TEST(UnknownName, LeavesOutALongListWhereANameIsNear) {
  std::vector<std::string> names;
  for (int i = 0; i < 30; ++i) names.push_back("name-" + std::to_string(100 + i));
  EXPECT_EQ(unknown_name("graph", "name-10o", names),
            "unknown graph 'name-10o'; did you mean 'name-100'?");
  EXPECT_THAT(unknown_name("graph", "ring", names), HasSubstr("name-129"));
}

}  // namespace
}  // namespace slip
