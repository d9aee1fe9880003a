package page

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// followAgain is how long to wait after the kernel's news could not be followed.
const followAgain = 100 * time.Millisecond

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
	for {
		if news, err := subscribe(nil); err == nil {
			h.hear(news)
		}
		time.Sleep(followAgain)
	}
}

// subscribe returns what the kernel tells of neighbours, beginning with those that there are, until it is done or fails.
func subscribe(done <-chan struct{}) (<-chan netlink.NeighUpdate, error) {
	news := make(chan netlink.NeighUpdate, 64)
	return news, netlink.NeighSubscribeWithOptions(news, done, netlink.NeighSubscribeOptions{ListExisting: true})
}

func (h *Holders) hear(news <-chan netlink.NeighUpdate) {
	for each := range news {
		if address, is := netip.AddrFromSlice(each.IP); is && each.Type == unix.RTM_NEWNEIGH && len(each.HardwareAddr) > 0 {
			h.learn(address.Unmap(), each.HardwareAddr.String())
		}
	}
}

// learn notes the hardware address that an address has now.
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
	if known {
		return found, true
	}
	found, err := h.current(source)
	return found, err == nil
}

// current asks the kernel who has an address just now.
func (h *Holders) current(source netip.Addr) (holder, error) {
	hardware, err := h.ask(source)
	if err != nil {
		return holder{}, err
	}
	return h.learn(source, hardware), nil
}

// hardwareOf returns the hardware address of a neighbour.
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
