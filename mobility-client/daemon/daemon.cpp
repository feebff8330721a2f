// SPDX-License-Identifier: GPL-2.0-or-later
#include "daemon/daemon.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "daemon/status.hpp"
#include "libmobility/program.hpp"

namespace mobility::client {

namespace asio = boost::asio;
using nlohmann::json;
using tcpmigrate::make_error;

namespace {

/// The last lines, as they were written: "time=... level=info event=...".
json log_json(const Recent& recent, std::size_t most) {
    json lines = json::array();
    for (auto& line : recent->last_formatted(most)) {
        while (!line.empty() && line.back() == '\n') {
            line.pop_back();
        }
        lines.push_back(std::move(line));
    }
    return lines;
}

}  // namespace

Daemon::Daemon(asio::io_context& io, const Identity& identity, const Config& config, const Log& log,
               Recent recent, Parts parts)
    : io_(io),
      identity_(identity),
      config_(config),
      log_(log),
      recent_(std::move(recent)),
      tls_(std::move(parts.tls)),
      trust_(std::move(parts.trust)),
      table_(std::move(parts.table)),
      watcher_(std::move(parts.watcher)),
      mover_(*table_, config.watch.policy, log),
      prover_(*table_),
      vouchers_(io, tls_, identity.name(), prover_, log),
      peers_(io, tls_, identity.name(), trust_, settings_, *table_, prover_, book_, config.peers,
             log),
      servers_(io, tls_, *table_, prover_, log),
      resumer_(*table_, book_, hands(), log),
      control_(
          io, [this](const ControlRequest& request) { return handle(request); }, log),
      tap_(std::make_shared<LogTap>([this](std::string line) {
          control_.tell({{"log", json::array({std::move(line)})}});
      })),
      timer_(io),
      tidying_(io) {
    settings_.software = std::string("mobility-client ") + MOBILITY_VERSION;
    apply(config);
    tap_->set_pattern(kLogPattern);
    log_->sinks().push_back(tap_);
}

Result<std::unique_ptr<Daemon>> Daemon::open(asio::io_context& io, const Identity& identity,
                                             const Config& config, const Log& log, Recent recent) {
    auto tls = Tls::create(identity);
    if (!tls) {
        return tls.error();
    }
    auto trust = Trust::load(config.trust);
    if (!trust) {
        return trust.error();
    }
    auto table = Table::open(io, log);
    if (!table) {
        return table.error();
    }
    auto watcher = watch::Watcher::open(io, config.watch, log);
    if (!watcher) {
        return watcher.error();
    }
    // The constructor is private: std::make_unique cannot use it.
    std::unique_ptr<Daemon> daemon(
        new Daemon(io, identity, config, log, std::move(recent),
                   {std::move(*tls), std::move(*trust), std::move(*table), std::move(*watcher)}));
    for (const auto& listening :
         {daemon->control_.listen(config.control, config.control_group), daemon->peers_.listen()}) {
        if (!listening) {
            daemon->stop();
            return listening.error();
        }
    }
    return daemon;
}

Daemon::~Daemon() {
    std::erase(log_->sinks(), tap_);
}

void Daemon::start() {
    servers_.start(
        [this](const Servers::Key& key, const ToHost& message) {
            resumer_.on_message(key, message);
            arm();
        },
        [this](const Servers::Key& key) { resumer_.on_joined(key); });
    peers_.when_agreed([this](const Name& /*peer*/) { want_servers(); });
    peers_.tell_relayed(
        [this](const Connection& connection) { return resumer_.is_relayed(connection); });
    table_->start([this](const Connection& connection) { on_event(connection); },
                  [this](bool reread) { on_batch(reread); });
    on_batch(true);
    watcher_->start([this](const watch::View& before, const watch::View& after) {
        log_->debug("event=view places={}", after.places.size());
        mover_.on_view(before, after);
        vouchers_.retry();
    });
    // Peers may have refused this host for want of one.
    vouchers_.when_first([this] { peers_.exchange(); });
    want_vouchers();
    tidy();
}

void Daemon::stop() {
    control_.stop();
    watcher_->stop();
    table_->stop();
    peers_.stop();
    servers_.stop();
    vouchers_.stop();
    timer_.cancel();
    tidying_.cancel();
}

void Daemon::tidy() {
    if (const auto count = book_.forget_unused(config_.peers.forget); count > 0) {
        log_->info("event=forgotten pairs={}", count);
    }
    tidying_.expires_after(config_.peers.forget / 4);
    tidying_.async_wait([this](const boost::system::error_code& cancelled) {
        if (!cancelled) {
            tidy();
        }
    });
}

void Daemon::on_event(const Connection& connection) {
    concerned_ = concerned_ || prover_.is_own(connection.cookie) ||
                 book_.owner(connection.cookie).has_value();
    mover_.on_event(connection);
    resumer_.on_event(connection);
    peers_.on_event(connection);
    if (connection.state == tcpmigrate::State::None) {
        prover_.ended(connection.cookie);
    }
}

void Daemon::on_batch(bool reread) {
    mover_.on_batch(reread);
    peers_.on_batch(reread);
    if (std::exchange(concerned_, false) || reread) {
        want_servers();
        resumer_.on_batch(reread);
        arm();
    }
}

// ---- Servers ----

const ServerConfig* Daemon::own_server(const Name& name) const {
    const auto own = std::ranges::find_if(
        config_.servers, [&](const ServerConfig& server) { return server.place.host == name; });
    return own == config_.servers.end() ? nullptr : &*own;
}

/// What is configured counts, whatever a peer says of that server.
Servers::Key Daemon::as_configured(const Servers::Key& key) const {
    const auto* own = own_server(key.server.host);
    return {own != nullptr ? own->place : key.server, key.from};
}

Servers::Wanted Daemon::how_to_use(const ServerPlace& place) const {
    if (const auto* own = own_server(place.host)) {
        return {own->token, {}, {}};
    }
    Servers::Wanted wanted;
    for (const auto& entry : book_.pairs()) {
        const auto& pair = entry.second;
        if (!pair.agreed() || pair.connections.empty() ||
            std::ranges::find(pair.servers, place) == pair.servers.end()) {
            continue;
        }
        // Others a server would have to look at in vain.
        std::ranges::copy_if(
            pair.tickets, std::back_inserter(wanted.tickets), [&](const Ticket& ticket) {
                return ticket.pair == pair.id() && ticket.guest == identity_.name();
            });
    }
    return wanted;
}

std::map<Servers::Key, Servers::Wanted> Daemon::chosen_servers() const {
    std::map<Servers::Key, Servers::Wanted> chosen;
    std::map<Servers::Key, std::set<Servers::Address>> all;
    for (auto& [key, soon] : resumer_.wanted()) {
        all[as_configured(key)].merge(soon);
    }
    const auto choose = [&](const auto& first) {
        for (const auto& [key, soon] : all) {
            if (chosen.size() < config_.server_channels && first(key) && !chosen.contains(key)) {
                chosen.emplace(key, how_to_use(key.server)).first->second.soon = soon;
            }
        }
    };
    choose([this](const Servers::Key& key) { return own_server(key.server.host) != nullptr; });
    choose([this](const Servers::Key& key) { return servers_.has(key); });
    choose([](const Servers::Key&) { return true; });
    return chosen;
}

void Daemon::want_servers() {
    servers_.want(chosen_servers());
}

Resumer::Hands Daemon::hands() {
    return {[this](const Servers::Key& key, const ToServer& message) {
                return servers_.say(as_configured(key), message);
            },
            [this](const Servers::Key& key) { return servers_.rtt(as_configured(key)); },
            [this](const tcpmigrate::MigrateRequest& request) {
                auto begun = table_->kernel().migrate(request);
                if (const auto* name = std::get_if<tcpmigrate::Cookie>(&request.name);
                    begun && name != nullptr) {
                    table_->has_begun(name->value, request.trial);
                }
                return begun;
            },
            [] { return std::chrono::steady_clock::now(); }};
}

void Daemon::arm() {
    const auto next = resumer_.next();
    if (!next) {
        timer_.cancel();
        return;
    }
    timer_.expires_at(*next);
    timer_.async_wait([this](const boost::system::error_code& cancelled) {
        if (!cancelled) {
            resumer_.expire();
            arm();
        }
    });
}

// ---- Settings ----

void Daemon::apply(const Config& config) {
    config_ = config;
    settings_.servers.clear();
    for (const auto& server : config.servers) {
        settings_.servers.push_back(server.place);
    }
    settings_.usable = [this](const ServerPlace& place) {
        return config_.accept_servers || own_server(place.host) != nullptr;
    };
    settings_.vouchers = [this] { return vouchers_.all(); };
    settings_.tickets = [this](const Name& guest, const PairId& pair) {
        std::vector<Ticket> tickets;
        const auto expires = std::chrono::time_point_cast<std::chrono::seconds>(
            std::chrono::system_clock::now() +
            std::chrono::duration_cast<std::chrono::seconds>(config_.tickets));
        if (auto ticket = issue(identity_, guest, pair, expires);
            ticket && !config_.servers.empty()) {
            tickets.push_back(*ticket);
        }
        return tickets;
    };
}

void Daemon::want_vouchers() {
    std::vector<Vouchers::Wanted> wanted;
    if (config_.vouchers && config_.peers.exchange) {
        for (const auto& server : config_.servers) {
            wanted.push_back({server.place, server.token});
        }
    }
    vouchers_.want(wanted);
}

Result<void> Daemon::reconfigure(const Config& config) {
    if (const auto trusted = trust_.reload(config.trust); !trusted) {
        return trusted.error();
    }
    mover_.set_policy(config.watch.policy);
    watcher_->reconfigure(config.watch);
    peers_.reconfigure(config.peers);
    log_->set_level(spdlog::level::from_str(config.log_level));
    apply(config);
    want_vouchers();
    return {};
}

// ---- What migrate-ctl asks ----

json Daemon::status() const {
    const auto up = std::chrono::steady_clock::now() - since_;
    return {{"version", MOBILITY_VERSION},
            {"name", identity_.name().to_string()},
            {"up_s", std::chrono::duration_cast<std::chrono::seconds>(up).count()},
            {"places", places_json(watcher_->view())},
            {"connections", connections_json(*table_)},
            {"stuck", stuck_json(mover_)},
            {"alone", alone_json(peers_)},
            {"vouchers", vouchers_json(vouchers_)},
            {"counters",
             counters_json({*table_, *watcher_, mover_, peers_, servers_, resumer_, vouchers_})}};
}

Result<json> Daemon::handle(const ControlRequest& request) {
    const auto& command = request.command;
    if (command == "status") {
        return json{{"status", status()}};
    }
    if (command == "pairs") {
        return json{{"pairs", pairs_json(book_, *table_, trust_, peers_, resumer_)}};
    }
    if (command == "servers") {
        return json{{"servers", servers_json(servers_)}};
    }
    if (command == "report") {
        const auto peers = peers_.exchange();
        const auto pairs = resumer_.report_all();
        arm();
        return json{{"report", {{"pairs", pairs}, {"exchanges", peers}}}};
    }
    if (command == "log") {
        return json{{"log", log_json(recent_, request.lines)}};
    }
    return make_error(EOPNOTSUPP, "there is no command \"" + command + "\"");
}

}  // namespace mobility::client
