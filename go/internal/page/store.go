// Package page serves http://clawker.internal/, where an agent reads its recent refusals and their reasons.
//
// Each firewall container's recorder remembers the refusals of its program and kernel, by agent (Store). The one
// in Envoy's container serves the page, on a Unix socket that only Envoy uses, and asks the one in CoreDNS's
// container for its part. An agent is identified by its address and its MAC address, so a later container with the
// address learns nothing.
package page

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	// remembered is how long a refusal stays on the page.
	remembered = time.Hour
	// rememberedUnsure is the same for an agent whose MAC address derives from its address, so that the next
	// container with the address has it too (Docker before 28).
	rememberedUnsure = 2 * time.Minute

	// mostRefusals limits an agent's refusals, and mostBytes the bytes of all agents'. The largest loses its
	// oldest.
	mostRefusals = 50
	mostBytes    = 4 << 20
	// bytesBeside is the size of a refusal without its texts, and longestText the limit of each text.
	bytesBeside = 256
	longestText = 255

	// justBefore is the tolerance for refusals before an agent's known start: the kernel reports the MAC address
	// and the program reports the refusal in any order.
	justBefore = 50 * time.Millisecond
)

type refused struct {
	Protocol string    `json:"protocol"`
	Name     string    `json:"name,omitempty"` // the agent's text
	Address  string    `json:"address,omitempty"`
	Port     int       `json:"port"`
	Method   string    `json:"method,omitempty"`
	Path     string    `json:"path,omitempty"` // of the last one
	Reason   string    `json:"reason"`
	Count    int       `json:"count"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`

	added time.Time // by the monotonic clock
}

func (r refused) isLike(other refused) bool {
	return r.Protocol == other.Protocol && r.Name == other.Name && r.Address == other.Address && r.Port == other.Port &&
		r.Method == other.Method && r.Reason == other.Reason
}

func (r refused) size() int {
	return bytesBeside + len(r.Name) + len(r.Address) + len(r.Method) + len(r.Path)
}

// agentHistory is one container's knowledge of an agent, the latest refusal last. More counts forgotten ones.
type agentHistory struct {
	Since    time.Time `json:"since"`
	Refusals []refused `json:"refusals"`
	More     int       `json:"more"`
}

type agent struct {
	hardware string
	since    time.Time
	refusals []refused // the latest last
	size     int
	more     int
}

// Store remembers the refusals of each agent.
type Store struct {
	now     func() time.Time // monotonic
	wall    func() time.Time // the clock of log lines
	holders *Holders
	began   time.Time

	mutex  sync.Mutex
	agents map[netip.Addr]*agent
	size   int
}

func NewStore(holders *Holders) *Store {
	return &Store{now: time.Now, wall: time.Now, holders: holders, began: time.Now(), agents: map[netip.Addr]*agent{}}
}

// readLine parses a line about a refusal, from any writer. Agents may have chosen its texts.
func readLine(text []byte) (refused, bool) {
	var read struct {
		refused
		Time       time.Time       `json:"time"`
		Port       json.RawMessage `json:"port"` // Envoy writes some as text
		Suppressed int             `json:"suppressed"`
	}
	if json.Unmarshal(text, &read) != nil || read.Reason == "" || read.Suppressed != 0 {
		return refused{}, false
	}
	refusal := read.refused
	port, _ := strconv.ParseUint(string(bytes.Trim(read.Port, `"`)), 10, 16)
	refusal.Port, refusal.Count, refusal.First, refusal.Last = int(port), 1, read.Time, read.Time
	for _, field := range []*string{&refusal.Protocol, &refusal.Name, &refusal.Address, &refusal.Method, &refusal.Path, &refusal.Reason} {
		*field = cut(*field)
	}
	return refusal, true
}

func cut(text string) string { return strings.ToValidUTF8(text[:min(len(text), longestText)], "") }

// Add remembers a line about an agent. A line from before the agent had its address is about another one. Without
// a MAC address from the kernel, nothing is remembered.
func (s *Store) Add(source netip.Addr, text []byte) {
	refusal, ok := readLine(text)
	if !ok {
		return
	}
	holder, ok := s.holders.of(source)
	refusal.added = s.now()
	age := s.wall().Sub(refusal.First)
	// The clock was set back after the start of a line from the future.
	if !ok || age < -justBefore || refusal.added.Add(-age).Before(latest(s.began, holder.since).Add(-justBefore)) {
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	entry := s.agents[source]
	if entry == nil || entry.hardware != holder.hardware {
		if entry != nil {
			s.size -= entry.size
		}
		entry = &agent{hardware: holder.hardware, since: latest(s.began, holder.since)}
		s.agents[source] = entry
	}
	s.expire(source, entry)
	if at := slices.IndexFunc(entry.refusals, refusal.isLike); at >= 0 {
		before := entry.refusals[at]
		refusal.Count, refusal.First = before.Count+1, before.First
		s.remove(entry, at)
	}
	entry.refusals = append(entry.refusals, refusal)
	entry.size += refusal.size()
	s.size += refusal.size()
	if len(entry.refusals) > mostRefusals {
		s.remove(entry, 0)
		entry.more++
	}
	for s.size > mostBytes {
		most := s.largest()
		s.remove(most, 0)
		most.more++
	}
}

// History returns the history of the agent with both addresses.
func (s *Store) History(source netip.Addr, hardware string) agentHistory {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	entry := s.agents[source]
	if entry == nil || entry.hardware != hardware {
		return agentHistory{Since: s.began, Refusals: []refused{}}
	}
	s.expire(source, entry)
	return agentHistory{Since: entry.since, Refusals: append([]refused{}, entry.refusals...), More: entry.more}
}

func (s *Store) expire(source netip.Addr, entry *agent) {
	age := remembered
	if followsFrom(source, entry.hardware) {
		age = rememberedUnsure
	}
	oldest := s.now().Add(-age)
	for len(entry.refusals) > 0 && entry.refusals[0].added.Before(oldest) {
		s.remove(entry, 0)
	}
	if len(entry.refusals) == 0 {
		entry.more = 0
	}
	entry.since = latest(entry.since, oldest)
}

func (s *Store) remove(entry *agent, at int) {
	size := entry.refusals[at].size()
	entry.size -= size
	s.size -= size
	entry.refusals = slices.Delete(entry.refusals, at, at+1)
}

func (s *Store) largest() *agent {
	return slices.MaxFunc(slices.Collect(maps.Values(s.agents)), func(one, other *agent) int { return cmp.Compare(one.size, other.size) })
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// followsFrom reports whether a MAC address is the one that Docker before 28 derives from an address.
func followsFrom(source netip.Addr, hardware string) bool {
	return source.Is4() && hardware == net.HardwareAddr(append([]byte{0x02, 0x42}, source.AsSlice()...)).String()
}

// holder is the MAC address of an address, and since when it is known: the zero time for the first holder, because
// no refusals of an earlier one are remembered.
type holder struct {
	hardware string
	since    time.Time
}

// Holders maps agents' addresses to MAC addresses, which agents can't change without a privilege.
type Holders struct {
	subnet netip.Prefix
	now    func() time.Time
	list   func() (map[netip.Addr]string, error) // the kernel's current neighbours

	mutex   sync.Mutex
	holders map[netip.Addr]holder
	fresh   time.Time // until then, the kernel isn't asked again
}

// NewHolders returns the holders in a subnet, none yet.
func NewHolders(subnet netip.Prefix) *Holders {
	return &Holders{subnet: subnet, now: time.Now, list: neighbours, holders: map[netip.Addr]holder{}}
}

func (h *Holders) of(source netip.Addr) (holder, bool) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	current, ok := h.holders[source]
	if ok && h.now().Before(h.fresh) || !h.subnet.Contains(source) {
		return current, ok
	}
	listed, err := h.list()
	if err != nil {
		return holder{}, false
	}
	h.fresh = h.now().Add(justBefore)
	for address, hardware := range listed {
		if before, ok := h.holders[address]; !ok && h.subnet.Contains(address) {
			h.holders[address] = holder{hardware: hardware}
		} else if ok && before.hardware != hardware {
			h.holders[address] = holder{hardware, h.now()}
		}
	}
	current, ok = h.holders[source]
	return current, ok
}

func (h *Holders) hardwareOf(source netip.Addr) (string, error) {
	listed, err := h.list()
	if err == nil && listed[source] == "" {
		err = fmt.Errorf("the kernel knows no neighbour %s", source)
	}
	return listed[source], err
}

func neighbours() (map[netip.Addr]string, error) {
	listed, err := netlink.NeighList(0, netlink.FAMILY_V4)
	byAddress := map[netip.Addr]string{}
	for _, neighbour := range listed {
		if address, ok := netip.AddrFromSlice(neighbour.IP); ok && len(neighbour.HardwareAddr) > 0 {
			byAddress[address.Unmap()] = neighbour.HardwareAddr.String()
		}
	}
	return byAddress, err
}
