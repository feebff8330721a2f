// SPDX-License-Identifier: GPL-2.0-or-later
// sym-proxy: command line, signals, systemd. SIGHUP reloads; SIGTERM and SIGINT end the
// daemon, not what it relays: that goes on in the kernel, and the next one takes it over.
#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <iostream>
#include <random>

#include "config/config.hpp"
#include "libmobility/lists.hpp"
#include "libmobility/metrics.hpp"
#include "libmobility/program.hpp"
#include "metrics/metrics.hpp"
#include "packets/packets.hpp"

namespace {

using namespace mobility;         // NOLINT(google-build-using-namespace)
using namespace mobility::proxy;  // NOLINT(google-build-using-namespace)
using tcpmigrate::Result;
namespace asio = boost::asio;

constexpr const char* kFooter = R"(
Files:
  /etc/sym-proxy/sym-proxy.toml   every setting, with its default
  /etc/sym-proxy/servers          names of the mobility servers that may order relays

Start:
  mobility-server --identity >> /etc/sym-proxy/servers   (there; the name of that server)
  systemctl start sym-proxy
  sym-proxy --identity                                   prints the name that servers need)";
const ProgramText kText{
    "sym-proxy",
    "Joins the ends of TCP connections that both sit behind NAPTs, and relays between them.",
    "the proxy",
    "/etc/sym-proxy/sym-proxy.toml",
    kFooter,
    {{"--relays", "print what is relayed, and end; works without the daemon, too"},
     {"--json", "... as JSON"},
     {"--unpin", "take the data path out of the kernel: what is relayed ends"}}};

DataPathOptions data_path_options(const Config& config) {
    DataPathOptions out;
    out.address = config.ports.address;
    out.address6 = config.ports.address6;
    out.first_port = config.ports.first;
    out.last_port = config.ports.last;
    out.interfaces = config.interfaces;
    out.attach = config.attach;
    out.pins = config.pins;
    // Two for each relay, and those that are on their way out.
    out.most_flows = config.relays.most * 9 / 4 + 256;
    out.events_per_second = static_cast<std::uint32_t>(config.events_per_second);
    return out;
}

/// What the kernel has of a proxy, and what is made of it.
struct Kernel {
    std::unique_ptr<DataPath> flows;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Packets> packets;
};

class Program {
  public:
    Program(ProgramOptions options, Config config, const Identity& identity, Tls tls,
            std::set<Name> servers)
        : options_(std::move(options)),
          config_(std::move(config)),
          name_(identity.name()),
          tls_(std::move(tls)),
          servers_(std::move(servers)),
          log_(make_log("sym-proxy", config_.log_level)) {}

    Result<void> run() {
        if (const auto opened = open(); !opened) {
            return opened.error();
        }
        Relays relays(config_.ports, config_.relays, *kernel_.flows, *kernel_.journal, hands(),
                      log_);
        relays_ = &relays;
        relays.restore();
        Service service(io_, tls_, relays, config_.ports, servers_, config_.service, log_);
        service_ = &service;
        MetricsListener metrics(
            io_, [&] { return metrics_text(relays, service, *kernel_.flows, *kernel_.packets); });
        Supervisor supervisor(
            io_, log_, [&] { return reload(service); },
            [&] {
                metrics.stop();
                service.stop();
                timer_.cancel();
                events_.close();
            });
        for (const auto& where : config_.listen) {
            if (const auto there = service.listen(where); !there) {
                return there.error();
            }
        }
        if (config_.metrics) {
            if (const auto there = metrics.listen(*config_.metrics); !there) {
                return there.error();
            }
        }
        events_.assign(::dup(kernel_.flows->fd()));
        take_events();
        sweep();
        log_->info("event=started name={} version={} ports={}-{}", name_.to_string(),
                   MOBILITY_VERSION, config_.ports.first, config_.ports.last);
        supervisor.run();
        return {};
    }

  private:
    Result<void> open() {
        auto packets = Packets::open(config_.ports);
        if (!packets) {
            return packets.error();
        }
        kernel_.packets = std::move(*packets);
        auto flows = DataPath::open(data_path_options(config_),
                                    [this](const Event& event) { relays_->on_event(event); });
        if (!flows) {
            return flows.error();
        }
        kernel_.flows = std::move(*flows);
        for (const auto& warning : kernel_.flows->warnings()) {
            log_->warn("event=data-path warning=\"{}\"", warning);
        }
        for (const auto& [interface, how, why] : kernel_.flows->attached()) {
            log_->info("event=attached interface={} path={} why=\"{}\"", interface,
                       how == Attach::Xdp ? "xdp" : "tc", why);
        }
        auto journal = Journal::open(config_.pins, config_.relays.most);
        if (!journal) {
            return journal.error();
        }
        kernel_.journal = std::move(*journal);
        return {};
    }

    Relays::Hands hands() {
        return {[this](const Octets& packet) { kernel_.packets->send(packet); },
                [] { return std::chrono::steady_clock::now(); }, Packets::is_free,
                [] { return std::random_device()(); },
                [this](const Relays::Customer& customer, const RelayPair& pair) {
                    service_->met(customer, pair);
                }};
    }

    void take_events() {
        events_.async_wait(asio::posix::descriptor_base::wait_read,
                           [this](const boost::system::error_code& failed) {
                               if (!failed) {
                                   kernel_.flows->poll();
                                   take_events();
                               }
                           });
    }

    void sweep() {
        timer_.expires_after(Relays::kSweep);
        timer_.async_wait([this](const boost::system::error_code& failed) {
            if (!failed) {
                relays_->sweep();
                ::malloc_trim(0);  // many handshakes at once take much for a moment
                sweep();
            }
        });
    }

    Result<void> reload(Service& service) {
        const auto config = read_config(options_, load_config);
        if (!config) {
            return config.error();
        }
        auto servers = read_names(config->servers);
        if (!servers) {
            return servers.error();
        }
        log_->set_level(spdlog::level::from_str(config->log_level));
        relays_->set_limits(config->relays);
        service.review(std::move(*servers), config->service);
        return {};
    }

    ProgramOptions options_;
    Config config_;
    Name name_;
    Tls tls_;
    std::set<Name> servers_;
    Log log_;
    asio::io_context io_{1};
    asio::steady_timer timer_{io_};
    asio::posix::stream_descriptor events_{io_};
    Kernel kernel_;
    Relays* relays_ = nullptr;  ///< lives in run(), as does this one
    Service* service_ = nullptr;
};

/// --relays: from what the kernel has, whoever runs.
Result<void> print_relays(const Config& config, bool json) {
    const auto flows = FlowView::open(config.pins);
    const auto journal = flows ? Journal::open(config.pins, config.relays.most)
                               : Result<std::unique_ptr<Journal>>(flows.error());
    if (!journal) {
        return journal.error();
    }
    std::vector<Relays::Seen> seen;
    for (const auto& record : (*journal)->all()) {
        auto& one = seen.emplace_back(Relays::Seen{record, false, {}});
        for (std::size_t side = 0; side < 2; side++) {
            const auto& place = record.ends.at(side).place;
            one.flows.at(side) =
                place ? flows->get({*place, record.proxy}) : std::optional<FlowSeen>();
        }
        one.joined = one.flows[0] && one.flows[1];
    }
    std::cout << relays_text(seen, json);
    return {};
}

Result<void> start(const ProgramOptions& options) {
    auto config = read_config(options, load_config);
    if (!config) {
        return config.error();
    }
    if (options.flags.contains("--relays")) {
        return print_relays(*config, options.flags.contains("--json"));
    }
    if (options.flags.contains("--unpin")) {
        Journal::unpin(config->pins);
        return DataPath::unpin(config->pins);
    }
    const auto servers = read_names(config->servers);
    if (!servers || options.check) {
        const auto good = check(*config);
        return servers ? good : servers.error();
    }
    // Only the proxy itself makes one: it has to own the file.
    const auto identity = options.identity ? Identity::load(config->identity)
                                           : Identity::load_or_create(config->identity);
    if (!identity) {
        return identity.error();
    }
    if (options.identity) {
        std::cout << identity->name().to_string() << '\n';
        return {};
    }
    if (const auto good = check(*config); !good) {
        return good.error();
    }
    auto tls = Tls::create(*identity);
    if (!tls) {
        return tls.error();
    }
    return Program(options, std::move(*config), *identity, std::move(*tls), *servers).run();
}

}  // namespace

int main(int argc, char** argv) {
    return run_program(argc, argv, kText, start);
}
