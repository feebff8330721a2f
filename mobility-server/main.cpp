// SPDX-License-Identifier: GPL-2.0-or-later
// mobility-server: command line, signals, systemd. SIGHUP reloads, SIGTERM and SIGINT
// end it; hosts then connect again and report again when it is back.
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <iostream>

#include "config/config.hpp"
#include "libmobility/metrics.hpp"
#include "libmobility/program.hpp"
#include "metrics/metrics.hpp"

namespace {

using namespace mobility;          // NOLINT(google-build-using-namespace)
using namespace mobility::server;  // NOLINT(google-build-using-namespace)
using tcpmigrate::Result;
namespace asio = boost::asio;

constexpr const char* kFooter = R"(
Files:
  /etc/mobility-server/mobility-server.toml   every setting, with its default
  /etc/mobility-server/hosts                  names of the hosts that may use the server
  /etc/mobility-server/tokens                 tokens with which hosts can enrol

Start:
  openssl rand -hex 16 | install -m 640 -g mobility-server /dev/stdin /etc/mobility-server/tokens
  systemctl start mobility-server
  mobility-server --identity                  prints the name that clients need)";
constexpr ProgramText kText{
    "mobility-server",
    "Tells hosts that have moved where their peers are, so that they can resume.", "the server",
    "/etc/mobility-server/mobility-server.toml", kFooter};

/// A descriptor for every channel, and some.
void raise_descriptors(std::size_t channels, Log& log) {
    rlimit limit{};
    const rlim_t wanted = channels + 1'000;
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
        static_cast<void>(::setrlimit(RLIMIT_NOFILE, &limit));
        if (limit.rlim_cur < wanted) {
            log->warn("event=few-descriptors limit={} wanted={} hint=\"raise LimitNOFILE\"",
                      limit.rlim_cur, wanted);
        }
    }
}

class Program {
  public:
    Program(ProgramOptions options, Config config, const Identity& identity, Tls tls,
            Admission admission)
        : options_(std::move(options)),
          config_(std::move(config)),
          name_(identity.name()),
          tls_(std::move(tls)),
          admission_(std::move(admission)),
          vouching_(identity, config_.vouching),
          log_(make_log("mobility-server", config_.log_level)),
          service_(io_, tls_, admission_, vouching_, config_.service, config_.exchange, log_),
          proxies_(io_, tls_,
                   {[this](std::uint64_t order) { return service_.exchange().waits_for(order); },
                    [this](const Reserved& reserved) { service_.reserved(reserved); },
                    [this](std::uint64_t order) { service_.no_proxy(order); },
                    [this](const Met& met, const Ready& by) { service_.met(met, by); }},
                   log_),
          metrics_(io_, [this] { return metrics_text(service_, &proxies_); }),
          supervisor_(
              io_, log_, [this] { return reload(); },
              [this] {
                  metrics_.stop();
                  service_.stop();
                  proxies_.stop();
              }) {
        service_.when_ordering([this](const Wish& wish) { proxies_.order(wish); });
    }

    Result<void> run() {
        raise_descriptors(config_.service.channels + config_.service.strangers, log_);
        for (const auto& where : config_.listen) {
            const auto there = service_.listen(where);
            if (!there) {
                return there.error();
            }
        }
        if (config_.metrics) {
            const auto there = metrics_.listen(*config_.metrics);
            if (!there) {
                return there.error();
            }
        }
        proxies_.configure(config_.proxies);
        log_->info("event=started name={} version={}", name_.to_string(), MOBILITY_VERSION);
        supervisor_.run();
        return {};
    }

  private:
    Result<void> reload() {
        auto config = read_config(options_, load_config);
        auto admission = config ? admission_.reload() : Result<void>(config.error());
        if (admission) {
            log_->set_level(spdlog::level::from_str(config->log_level));
            vouching_.set(config->vouching);
            service_.review(config->service, config->exchange);
            proxies_.configure(config->proxies);
        }
        return admission;
    }

    ProgramOptions options_;
    Config config_;
    Name name_;
    Tls tls_;
    Admission admission_;
    Vouching vouching_;
    Log log_;
    asio::io_context io_{1};
    Service service_;
    Proxies proxies_;
    MetricsListener metrics_;
    Supervisor supervisor_;
};

Result<void> start(const ProgramOptions& options) {
    auto config = read_config(options, load_config);
    if (!config) {
        return config.error();
    }
    auto admission = Admission::load(config->admission);
    if (!admission || options.check) {
        return admission ? Result<void>() : admission.error();
    }
    // Only the server itself makes one: it has to own the file.
    const auto identity = options.identity ? Identity::load(config->identity)
                                           : Identity::load_or_create(config->identity);
    if (!identity) {
        return identity.error();
    }
    if (options.identity) {
        std::cout << identity->name().to_string() << '\n';
        return {};
    }
    auto tls = Tls::create(*identity);
    if (!tls) {
        return tls.error();
    }
    return Program(options, std::move(*config), *identity, std::move(*tls), std::move(*admission))
        .run();
}

}  // namespace

int main(int argc, char** argv) {
    return run_program(argc, argv, kText, start);
}
