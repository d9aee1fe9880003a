package page

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const followAgain = time.Second

// holder is who has an address: a hardware address, and since when that is known. It is the zero time for one that had it when
// the address was first seen: there is nobody before it of whom anything is remembered.
type holder struct {
	hardware string
	since    time.Time
}

// Holders knows which hardware address each address of agents has, from the kernel's table of neighbours (RTNETLINK(7),
// RTM_NEWNEIGH). An agent can't change its own without a privilege.
type Holders struct {
	subnet netip.Prefix
	now    func() time.Time
	ask    func(netip.Addr) (string, error) // what the kernel knows just now

	mutex sync.Mutex
	known map[netip.Addr]holder
}

// NewHolders returns what is known about the addresses in a subnet: nothing.
func NewHolders(subnet netip.Prefix) *Holders {
	return &Holders{subnet: subnet, now: time.Now, ask: hardwareOf, known: map[netip.Addr]holder{}}
}

func (h *Holders) areOn(source netip.Addr) bool { return h.subnet.Contains(source) }

// Follow learns of each change, for ever. What has changed while nothing was heard is seen when it begins anew.
func (h *Holders) Follow() {
	for told := false; ; time.Sleep(followAgain) {
		news, end, err := h.begin()
		if err == nil {
			h.hear(news)
			end()
		} else if !told {
			fmt.Fprintf(os.Stderr, "fwctl: following the neighbours: %v\n", err)
			told = true
		}
	}
}

// begin learns what there is, and returns the news, which end when they can't be followed, and what ends them. (The library's own
// way to begin with what there is needs a privilege.)
func (h *Holders) begin() (<-chan netlink.NeighUpdate, func(), error) {
	news, done := make(chan netlink.NeighUpdate, 64), make(chan struct{})
	if err := netlink.NeighSubscribe(news, done); err != nil {
		return nil, nil, err
	}
	found, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		close(done)
		go h.hear(news) // until it ends
		return nil, nil, err
	}
	for _, each := range found {
		h.see(each)
	}
	return news, func() { close(done) }, nil
}

func (h *Holders) hear(news <-chan netlink.NeighUpdate) {
	for each := range news {
		if each.Type == unix.RTM_NEWNEIGH {
			h.see(each.Neigh)
		}
	}
}

func (h *Holders) see(neighbour netlink.Neigh) {
	if address, is := netip.AddrFromSlice(neighbour.IP); is && len(neighbour.HardwareAddr) > 0 {
		h.learn(address.Unmap(), neighbour.HardwareAddr.String())
	}
}

func (h *Holders) learn(source netip.Addr, hardware string) holder {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	before, known := h.known[source]
	if !h.areOn(source) || known && before.hardware == hardware {
		return before
	}
	found := holder{hardware: hardware}
	if known {
		found.since = h.now()
	}
	h.known[source] = found
	return found
}

// of returns who has an address. If that is not known yet, the kernel is asked.
func (h *Holders) of(source netip.Addr) (holder, bool) {
	h.mutex.Lock()
	found, known := h.known[source]
	h.mutex.Unlock()
	if known || !h.areOn(source) {
		return found, known
	}
	hardware, err := h.ask(source)
	if err != nil {
		return holder{}, false
	}
	return h.learn(source, hardware), true
}

func hardwareOf(source netip.Addr) (string, error) {
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return "", err
	}
	for _, each := range neighbours {
		if address, is := netip.AddrFromSlice(each.IP); is && address.Unmap() == source && len(each.HardwareAddr) > 0 {
			return each.HardwareAddr.String(), nil
		}
	}
	return "", fmt.Errorf("the kernel knows no neighbour %s", source)
}
