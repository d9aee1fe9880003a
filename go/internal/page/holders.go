package page

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

// holder is who has an address: a hardware address, and since when that is known. It is the zero time for one that had it when
// the address was first seen: there is nobody before it of whom anything is remembered.
type holder struct {
	hardware string
	since    time.Time
}

// Holders knows which hardware address each address of agents has, from the kernel's table of neighbours. An agent can't
// change its own without a privilege.
type Holders struct {
	subnet netip.Prefix
	now    func() time.Time
	list   func() (map[netip.Addr]string, error) // what the kernel knows just now

	mutex sync.Mutex
	known map[netip.Addr]holder
	fresh time.Time // until when the kernel need not be asked again
}

// NewHolders returns what is known about the addresses in a subnet: nothing.
func NewHolders(subnet netip.Prefix) *Holders {
	return &Holders{subnet: subnet, now: time.Now, list: neighbours, known: map[netip.Addr]holder{}}
}

// of returns who has an address, as of justBefore at most.
func (h *Holders) of(source netip.Addr) (holder, bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	found, known := h.known[source]
	if known && h.now().Before(h.fresh) || !h.subnet.Contains(source) {
		return found, known
	}
	listed, err := h.list()
	if err != nil {
		return holder{}, false
	}
	h.fresh = h.now().Add(justBefore)
	for address, hardware := range listed {
		if before, known := h.known[address]; !known && h.subnet.Contains(address) {
			h.known[address] = holder{hardware: hardware}
		} else if known && before.hardware != hardware {
			h.known[address] = holder{hardware, h.now()}
		}
	}
	found, known = h.known[source]
	return found, known
}

// hardwareOf returns who has an address at this moment.
func (h *Holders) hardwareOf(source netip.Addr) (string, error) {
	listed, err := h.list()
	if err == nil && listed[source] == "" {
		err = fmt.Errorf("the kernel knows no neighbour %s", source)
	}
	return listed[source], err
}

func neighbours() (map[netip.Addr]string, error) {
	listed, err := netlink.NeighList(0, netlink.FAMILY_V4)
	found := map[netip.Addr]string{}
	for _, each := range listed {
		if address, is := netip.AddrFromSlice(each.IP); is && len(each.HardwareAddr) > 0 {
			found[address.Unmap()] = each.HardwareAddr.String()
		}
	}
	return found, err
}
