// SPDX-License-Identifier: GPL-2.0-or-later
#include "data_path.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <utility>

#include "attach.hpp"
#include "flow.h"
#include "link.hpp"
#include "object.hpp"
#include "tuple.hpp"

namespace mobility::proxy {

namespace {

/// The clock of flow.bpf.c.
std::uint64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

FlowSeen to_seen(const flow_key& key, const flow& flow, std::uint64_t now) {
    FlowSeen seen;
    seen.relay = flow.relay;
    seen.out = out_of(key, flow);
    seen.packets = flow.packets;
    seen.bytes = flow.bytes;
    seen.idle_ns = now > flow.last_ns ? now - flow.last_ns : 0;
    if ((flow.seen & FLOW_ACK) != 0) {
        seen.ack = flow.ack;
    }
    if ((flow.seen & FLOW_FIN) != 0) {
        seen.fin_end = flow.fin_end;
    }
    seen.rst = (flow.seen & FLOW_RST) != 0;
    return seen;
}

std::optional<FlowSeen> look_up(int map, const Tuple& in) {
    const flow_key key = to_key(in);
    flow found{};
    if (bpf_map_lookup_elem(map, &key, &found) != 0) {
        return std::nullopt;
    }
    return to_seen(key, found, now_ns());
}

class BpfDataPath final : public DataPath {
  public:
    BpfDataPath(Object object, const DataPathOptions& options, OnEvent on_event)
        : object_(std::move(object)),
          attacher_(object_, options.pins),
          pins_(options.pins),
          on_event_(std::move(on_event)),
          warnings_(object_.warnings()) {}

    Result<void> start(const DataPathOptions& options, const std::vector<Link>& links);

    Result<void> set(const Tuple& in, const Tuple& out, std::uint32_t relay, bool late) override;
    Result<void> remove(const Tuple& in) override;
    [[nodiscard]] std::optional<FlowSeen> get(const Tuple& in) const override;
    [[nodiscard]] std::map<Tuple, FlowSeen> flows() const override;
    [[nodiscard]] int fd() const override { return ring_buffer__epoll_fd(ring_.get()); }
    void poll() override { ring_buffer__consume(ring_.get()); }
    [[nodiscard]] std::vector<std::uint64_t> counters() const override;
    [[nodiscard]] std::vector<Attached> attached() const override { return attached_; }
    [[nodiscard]] std::vector<std::string> warnings() const override { return warnings_; }
    void unpin() override;

  private:
    struct FreeRing {
        void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
    };

    Result<void> configure(const DataPathOptions& options, const std::vector<Link>& links);
    void warn_of_forwarding(const std::vector<Link>& links, bool v4, bool v6);
    static int on_record(void* self, void* data, std::size_t size);

    Object object_;
    Attacher attacher_;
    std::string pins_;
    OnEvent on_event_;
    std::vector<std::string> warnings_;
    std::vector<Attached> attached_;
    std::unique_ptr<ring_buffer, FreeRing> ring_;
};

Result<void> BpfDataPath::configure(const DataPathOptions& options,
                                    const std::vector<Link>& links) {
    flow_proxy proxy{};
    if (options.address) {
        put_address(*options.address, proxy.addr4);
    }
    if (options.address6) {
        put_address(*options.address6, proxy.addr6);
    }
    proxy.first_port = options.first_port;
    proxy.last_port = options.last_port;
    proxy.events_per_second = options.events_per_second;
    proxy.only_interface = links.size() == 1 ? links[0].index : 0;
    proxy.layout = FLOW_LAYOUT;
    const std::uint32_t zero = 0;
    if (bpf_map_update_elem(object_.map("proxy"), &zero, &proxy, BPF_ANY) != 0) {
        return failure(errno, "the map proxy");
    }
    return {};
}

/// The kernel tells BPF programs no route from an interface that does not forward.
void BpfDataPath::warn_of_forwarding(const std::vector<Link>& links, bool v4, bool v6) {
    for (const auto& link : links) {
        for (const std::string family : {"ipv4", "ipv6"}) {
            int forwards = 1;
            std::ifstream("/proc/sys/net/" + family + "/conf/" + link.name + "/forwarding") >>
                forwards;
            if (forwards == 0 && (family == "ipv4" ? v4 : v6)) {
                warnings_.push_back("net." + family + ".conf." + link.name +
                                    ".forwarding is 0: with several interfaces nothing is "
                                    "relayed that comes in there");
            }
        }
    }
}

Result<void> BpfDataPath::start(const DataPathOptions& options, const std::vector<Link>& links) {
    if (auto done = configure(options, links); !done) {
        return done.error();
    }
    ring_.reset(ring_buffer__new(object_.map("events"), on_record, this, nullptr));
    if (!ring_) {
        return failure(errno, "the map events");
    }
    for (const auto& link : links) {
        auto done = attacher_.attach(link, options.attach);
        if (!done) {
            return done.error();
        }
        attached_.push_back(*done);
    }
    attacher_.keep(links);
    if (links.size() > 1) {
        warn_of_forwarding(links, options.address.has_value(), options.address6.has_value());
    }
    return attacher_.set_ways(links);
}

int BpfDataPath::on_record(void* self, void* data, std::size_t size) {
    const auto& record = *static_cast<const flow_event*>(data);
    constexpr std::size_t header = offsetof(flow_event, packet);
    if (size < header || record.captured > size - header) {
        return 0;
    }
    Event event;
    event.why = record.why == FLOW_EVENT_ICMP       ? Event::Why::Icmp
                : record.why == FLOW_EVENT_TOO_BIG  ? Event::Why::TooBig
                : record.why == FLOW_EVENT_FRAGMENT ? Event::Why::Fragment
                                                    : Event::Why::Segment;
    event.length = record.length;
    event.mtu = record.mtu;
    event.packet = {static_cast<const std::uint8_t*>(data) + header, record.captured};
    static_cast<BpfDataPath*>(self)->on_event_(event);
    return 0;
}

Result<void> BpfDataPath::set(const Tuple& in, const Tuple& out, std::uint32_t relay, bool late) {
    if (out.from.address != in.to.address) {
        return make_error(EINVAL, out.from.address.to_string() + ": a flow leaves from " +
                                      in.to.address.to_string() + ", where it has come to");
    }
    const flow_key key = to_key(in);
    flow made = make_flow(in, out, relay);
    made.last_ns = now_ns();
    made.late = late ? 1 : 0;
    if (bpf_map_update_elem(object_.map("flows"), &key, &made, BPF_ANY) != 0) {
        return failure(errno == E2BIG ? ENOSPC : errno, "the map flows");
    }
    return {};
}

Result<void> BpfDataPath::remove(const Tuple& in) {
    const flow_key key = to_key(in);
    if (bpf_map_delete_elem(object_.map("flows"), &key) != 0) {
        return failure(errno, "the map flows");
    }
    return {};
}

std::optional<FlowSeen> BpfDataPath::get(const Tuple& in) const {
    return look_up(object_.map("flows"), in);
}

std::map<Tuple, FlowSeen> BpfDataPath::flows() const {
    std::map<Tuple, FlowSeen> all;
    std::vector<flow_key> keys(256);
    std::vector<flow> values(keys.size());
    const std::uint64_t now = now_ns();
    std::uint32_t position = 0;
    const std::uint32_t* from = nullptr;
    for (bool more = true; more;) {
        auto count = static_cast<__u32>(keys.size());
        const int error =
            bpf_map_lookup_batch(object_.map("flows"), const_cast<std::uint32_t*>(from), &position,
                                 keys.data(), values.data(), &count, nullptr);
        // One bucket with more flows than there is room for.
        if (error == -ENOSPC) {
            keys.resize(keys.size() * 2);
            values.resize(keys.size());
            continue;
        }
        if (error != 0 && error != -ENOENT) {
            break;
        }
        for (std::size_t i = 0; i < count; i++) {
            all.emplace(to_tuple(keys[i]), to_seen(keys[i], values[i], now));
        }
        from = &position;
        more = error == 0;
    }
    return all;
}

std::vector<std::uint64_t> BpfDataPath::counters() const {
    std::vector<std::uint64_t> sums;
    std::vector<std::uint64_t> cpus(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    for (std::uint32_t i = 0; i < FLOW_COUNTERS; i++) {
        std::fill(cpus.begin(), cpus.end(), 0);
        bpf_map_lookup_elem(object_.map("counters"), &i, cpus.data());
        sums.push_back(std::accumulate(cpus.begin(), cpus.end(), std::uint64_t{0}));
    }
    return sums;
}

void BpfDataPath::unpin() {
    attacher_.keep({});
    std::error_code ignored;
    for (const auto& name : pinned_maps()) {
        std::filesystem::remove(pins_ + "/" + name, ignored);
    }
    std::filesystem::remove(pins_, ignored);
}

}  // namespace

Result<std::unique_ptr<DataPath>> DataPath::open(const DataPathOptions& options, OnEvent on_event) {
    std::vector<Link> links;
    for (const auto& name : options.interfaces) {
        auto link = Link::look_at(name);
        if (!link) {
            return link.error();
        }
        links.push_back(std::move(*link));
    }
    if (links.empty()) {
        return make_error(EINVAL, "no interface is named where segments come in");
    }
    if (auto made = make_pins(options.pins); !made) {
        return made.error();
    }
    auto object = Object::load(options.pins, options.most_flows);
    if (!object) {
        return object.error();
    }
    auto path = std::make_unique<BpfDataPath>(std::move(*object), options, std::move(on_event));
    if (auto started = path->start(options, links); !started) {
        return started.error();
    }
    return std::unique_ptr<DataPath>(std::move(path));
}

Result<void> DataPath::unpin(const std::string& pins) {
    auto object = Object::load(pins, DataPathOptions().most_flows);
    if (!object) {
        return object.error();
    }
    DataPathOptions options;
    options.pins = pins;
    BpfDataPath(std::move(*object), options, {}).unpin();
    return {};
}

Result<FlowView> FlowView::open(const std::string& pins) {
    const auto file = pins + "/flows";
    const int fd = bpf_obj_get(file.c_str());
    if (fd < 0) {
        return failure(errno, file + ", what a proxy keeps in the kernel");
    }
    FlowView view(fd);
    bpf_map_info info{};
    __u32 size = sizeof(info);
    // The kernel writes as much as is in the map.
    if (bpf_obj_get_info_by_fd(fd, &info, &size) != 0 || info.key_size != sizeof(flow_key) ||
        info.value_size != sizeof(flow)) {
        return make_error(EINVAL, file + " is of another version");
    }
    return view;
}

FlowView::FlowView(FlowView&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FlowView::~FlowView() {
    if (fd_ >= 0) {
        close(fd_);
    }
}

std::optional<FlowSeen> FlowView::get(const Tuple& in) const {
    return look_up(fd_, in);
}

}  // namespace mobility::proxy
