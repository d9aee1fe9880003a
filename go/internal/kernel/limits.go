package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	routing "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/users"
)

// The kernel limits an agent's use of a firewall container, in our own table, before the program spends anything
// on it. Each limit is a set of source addresses that the kernel fills. If a set is full, or the kernel lacks
// memory for it, packets are refused.

const (
	limitTable = "clawker-fw"

	refusedConnections, refusedQueries, refusedDatagrams = "refused-connections", "refused-queries", "refused-datagrams"

	// connectionBurst is the number of seconds whose connections an agent may open at once.
	connectionBurst = 2
	// An agent may always open a calmPart of its connections per second. For the rest, all agents share the rate
	// of one agent, and leavingShare times that rate for connections to hosts, for the sake of the Docker host's
	// table.
	calmPart, leavingShare = 10, 2
	// queriesInBurst in queriesPerSecond may be sent at once. Queries wait in one small socket buffer (208 KiB by
	// default), where one agent's must not crowd out others.
	queriesInBurst, queriesPerSecond = 2, 5
	// datagramBurst is the part of a second's datagrams that may be sent at once, for the same reason.
	datagramBurst = 10

	// bytesPerQuery is the size of a TCP query with headers. The kernel sees segments, not queries, so it counts
	// bytes.
	bytesPerQuery = 128
	// leastBurst is the largest segment that the kernel may deliver at once. A smaller burst would never let it
	// pass.
	leastBurst = 1 << 16

	// One part in reservedShare of all connections is reserved for agents that have at most one part in fewShare.
	reservedShare, fewShare = 4, 64

	// answersTold answers to an agent's datagrams are copied to the recorder per second, and at once. The recorder
	// may log fewer (recorder.go), and a flood must not displace copies for other agents.
	answersTold = 200

	// tellFor is how long a source address is remembered after its last refusal.
	tellFor = time.Hour

	// forgetAfter is how long a source address is remembered after its last packet, when its burst is full again.
	forgetAfter = 10 * time.Second
)

// Numbers in packets and in the kernel's interface.
const (
	registerOne = 1

	synAlone, resetAndAck = 0x02, 0x14 // of the flags in connectionFlags
	// connectionFlags are FIN, SYN, RST and ACK. A first segment has only SYN of these, and its refusal RST and
	// ACK.
	connectionFlags = 0x17

	confirmed = 1 << 3 // a connection's status in the kernel's table (IPS_CONFIRMED)

	portUnreachableType, portUnreachableCode, redirectType = 3, 3, 5 // RFC 792
)

type limitFilter struct {
	table  *nftables.Table
	sets   []*nftables.Set
	chains []*nftables.Chain
	rules  []*nftables.Rule
}

func newFilter() limitFilter {
	table := &nftables.Table{Name: limitTable, Family: nftables.TableFamilyIPv4}
	return limitFilter{table: table, sets: []*nftables.Set{{Table: table, Name: installedSet, KeyType: nftables.TypeIP6Addr}}}
}

// newLimitFilter describes the table. It identifies agents by the addresses of their subnet, not by an interface,
// so that a later interface is covered too. rp_filter drops agents' packets with other addresses, or from other
// interfaces.
//
// The chain "receiving" checks new connections: first the agent's rate, then its open connections, then those of
// all agents. Above its rate an agent gets no answer: its retry a second later may succeed, and a flood slows
// itself down. With too many open connections it gets a reset, and sees the error at once. Existing connections
// are never touched. When all agents together have many, only agents with few get another one, so the heaviest
// agent is refused. "arriving" drops excessive UDP queries, before the kernel tracks them.
//
// "connecting" limits new connections and UDP sessions to hosts for all agents together, because agents must not
// fill the Docker host's table. The kernel repeats a dropped first segment a second later.
//
// Redirects are dropped: a neighbour must not change our routes. The sysctl against them is unreliable, because
// another one turns it on (inet_forward_change).
//
// Separate rules count refusals per source address: a rule that can't count ends there, and must not keep the next
// one from refusing.
//
// Others' connections and datagrams to private addresses and ports are answered as if these were closed, after
// they have counted as new.
//
// Packets for an address of the subnet from a source outside it are dropped. Otherwise a neighbour on the way out
// could route packets here, because the kernel accepts those for any of its addresses.
//
// A UDP session counts as a connection: its first datagram is checked like a connection's first segment. The rate
// of an agent's datagrams is limited before.
//
// Other packets of agents are untracked, and so is UDP without limited sessions: an agent could fill the kernel's
// table of connections, which all share.
//
// "telling" copies the kernel's refusals for the recorder (recorder.go): resets of new connections, and port
// unreachable messages. The kernel answers every datagram (icmp_ratemask). Answers beyond an agent's rate are
// counted instead of copied.
func newLimitFilter(limits boot.Limits) limitFilter {
	f := newFilter()
	size := uint32(1) << min(32-limits.Subnet.Bits(), 16)
	begun, busy := f.addSet("begun", size, forgetAfter), f.addSet("busy", size, forgetAfter)
	open := f.addSet("open", size, 0)
	refused := f.addSet(refusedConnections, size, tellFor)
	refusedUDP := f.addSet(refusedDatagrams, size, tellFor)

	arriving := f.addHook("arriving", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	leaving := f.addHook("leaving", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	receiving := f.addHook("receiving", nftables.ChainHookInput, nftables.ChainPriorityFilter)
	few := f.addSet("few", size, 0)
	connecting := f.addHook("connecting", nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	beginning, opening, sharing := f.addChain("beginning"), f.addChain("opening"), f.addChain("sharing")

	from := slices.Concat(notLoopback(expr.MetaKeyIIFNAME), isIn(source, limits.Subnet))
	to := slices.Concat(notLoopback(expr.MetaKeyOIFNAME), isIn(destination, limits.Subnet))
	outside := slices.Concat(notLoopback(expr.MetaKeyIIFNAME), isNotIn(source, limits.Subnet), isIn(destination, limits.Subnet))
	f.addRule(arriving, outside, verdict(expr.VerdictDrop))
	f.addRule(receiving, isProtocol(unix.IPPROTO_ICMP), isRedirect, verdict(expr.VerdictDrop))
	f.addRule(receiving, from, isProtocol(unix.IPPROTO_TCP), isNewConnection, goTo(beginning))
	for _, address := range limits.Except {
		f.addRule(beginning, isFrom(address), verdict(expr.VerdictAccept))
	}
	rate := limits.ConnectionsPerSecond
	tooMany := burstsOf(leavingShare * rate)
	tooMany.Over = true
	calm := (rate + calmPart - 1) / calmPart
	f.addRule(beginning, within(begun, unix.NFT_DYNSET_OP_UPDATE, burstsOf(calm)), goTo(opening))
	if rate > calm {
		f.addRule(beginning, within(busy, unix.NFT_DYNSET_OP_UPDATE, burstsOf(rate-calm)), []expr.Any{burstsOf(rate)}, goTo(opening))
	}
	f.addRule(connecting, notLoopback(expr.MetaKeyOIFNAME), isNotIn(destination, limits.Subnet), isNewSession,
		[]expr.Any{tooMany}, verdict(expr.VerdictDrop))
	f.addRule(beginning, counted(refused))
	f.addRule(beginning, verdict(expr.VerdictDrop))
	for _, address := range limits.Private {
		f.addRule(opening, isTo(address), isProtocol(unix.IPPROTO_TCP), reset)
		f.addRule(opening, isTo(address), unreachable)
	}
	if limits.PrivatePort != 0 {
		f.addRule(opening, isProtocol(unix.IPPROTO_TCP), isToPort(limits.PrivatePort), reset)
	}
	f.addRule(opening, within(open, unix.NFT_DYNSET_OP_ADD, atMost(limits.Connections)), goTo(sharing))
	f.addRule(opening, counted(refused))
	f.addRule(opening, reset)
	reserved := limits.AllConnections / reservedShare
	f.addRule(sharing, within(few, unix.NFT_DYNSET_OP_ADD, atMost(max(1, limits.AllConnections/fewShare))), setMark)
	f.addRule(sharing, []expr.Any{atMost(limits.AllConnections - reserved)}, verdict(expr.VerdictAccept))
	f.addRule(sharing, isMarked, []expr.Any{atMost(reserved)}, verdict(expr.VerdictAccept))
	f.addRule(sharing, counted(refused))
	f.addRule(sharing, reset)

	if limits.QueriesPerSecond > 0 {
		queries := f.addSet("queries", size, forgetAfter)
		sentBytes := f.addSet("octets", size, forgetAfter)
		refused := f.addSet(refusedQueries, size, tellFor)
		asking, sending := f.addChain("asking"), f.addChain("sending")
		f.addRule(arriving, from, isProtocol(unix.IPPROTO_UDP), isQuery, jumpTo(asking))
		f.limitRate(asking, queries, refused, perSecond(limits.QueriesPerSecond, queriesAtOnce(limits.QueriesPerSecond)))
		f.addRule(receiving, from, isProtocol(unix.IPPROTO_TCP), isQuery, goTo(sending))
		f.addRule(sending, within(sentBytes, unix.NFT_DYNSET_OP_UPDATE, bytesPerSecond(limits.QueriesPerSecond)),
			verdict(expr.VerdictAccept))
		f.addRule(sending, verdict(expr.VerdictDrop))
	}
	telling := f.addChain("telling")
	for _, address := range limits.Except {
		f.addRule(telling, isTo(address), verdict(expr.VerdictReturn))
	}
	f.addRule(telling, []expr.Any{&expr.Log{
		Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: refusalGroup, Snaplen: refusalSize,
	}})
	f.addRule(leaving, to, isProtocol(unix.IPPROTO_TCP), isRefusedConnection, jumpTo(telling))
	answering := f.addChain("answering")
	f.addRule(leaving, to, isProtocol(unix.IPPROTO_ICMP), isRefusedDatagram, jumpTo(answering))
	copied := f.addSet("told", size, forgetAfter)
	f.addRule(answering, updated(destination, copied, perSecond(answersTold, answersTold)), goTo(telling))
	f.addRule(answering, updated(destination, refusedUDP, &expr.Counter{}))
	untracked := isNot(unix.IPPROTO_TCP)
	if limits.DatagramsPerSecond > 0 {
		datagrams := f.addSet("datagrams", size, forgetAfter)
		talking := f.addChain("talking")
		f.addRule(arriving, from, isProtocol(unix.IPPROTO_UDP), jumpTo(talking))
		f.limitRate(talking, datagrams, refusedUDP, perSecond(limits.DatagramsPerSecond, max(1, limits.DatagramsPerSecond/datagramBurst)))
		f.addRule(receiving, from, isProtocol(unix.IPPROTO_UDP), isNewSession, goTo(beginning))
		untracked = slices.Concat(untracked, isNot(unix.IPPROTO_UDP))
	}
	f.addRule(arriving, from, untracked, []expr.Any{&expr.Notrack{}})
	f.addRule(leaving, to, untracked, []expr.Any{&expr.Notrack{}})
	return f
}

// newSixFilter describes our table for IPv6, which is unused: an IPv6 address or route in this namespace opens no
// way.
func newSixFilter() limitFilter {
	f := limitFilter{table: &nftables.Table{Name: limitTable, Family: nftables.TableFamilyIPv6}}
	arriving := f.addHook("arriving", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	leaving := f.addHook("leaving", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	f.addRule(arriving, notLoopback(expr.MetaKeyIIFNAME), verdict(expr.VerdictDrop))
	f.addRule(leaving, notLoopback(expr.MetaKeyOIFNAME), verdict(expr.VerdictDrop))
	return f
}

// newApartFilter describes the table of a relay, which has one peer on each of its networks. Packets from and to
// others are dropped before the kernel tracks them: agents and other relays can't reach it, or fill its table of
// connections, and it can't reach them. Its agent may not connect to it, and may send only TCP segments.
//
// The engine could separate relays too (enable_icc=false). But for that it turns br_netfilter on, for all bridges
// of the host: the kernel would track all packets of agents, and one agent could fill the host's own table.
func newApartFilter(apart boot.Apart) limitFilter {
	f := newFilter()
	arriving := f.addHook("arriving", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	leaving := f.addHook("leaving", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	drop := verdict(expr.VerdictDrop)
	for _, pair := range []boot.Pair{apart.Agent, apart.Engine} {
		from := slices.Concat(notLoopback(expr.MetaKeyIIFNAME), isIn(source, pair.Subnet))
		to := slices.Concat(notLoopback(expr.MetaKeyOIFNAME), isIn(destination, pair.Subnet))
		only := prefixOf(pair.Only)
		f.addRule(arriving, from, isNotIn(source, only), drop)
		f.addRule(leaving, to, isNotIn(destination, only), drop)
	}
	agent := isFrom(apart.Agent.Only)
	f.addRule(arriving, agent, isNot(unix.IPPROTO_TCP), drop)
	f.addRule(arriving, agent, isProtocol(unix.IPPROTO_TCP), isNewConnection, drop)
	return f
}

func prefixOf(address netip.Addr) netip.Prefix { return netip.PrefixFrom(address, address.BitLen()) }

func hasSix() bool {
	_, err := os.Stat(filepath.Join(users.Processes, "self", "net", "if_inet6"))
	return err == nil
}

func (f *limitFilter) limitRate(chain *nftables.Chain, sources, refused *nftables.Set, limit *expr.Limit) {
	f.addRule(chain, within(sources, unix.NFT_DYNSET_OP_UPDATE, limit), verdict(expr.VerdictReturn))
	f.addRule(chain, counted(refused))
	f.addRule(chain, verdict(expr.VerdictDrop))
}

func (f *limitFilter) addSet(name string, size uint32, forget time.Duration) *nftables.Set {
	set := &nftables.Set{
		Table: f.table, Name: name, KeyType: nftables.TypeIPAddr, Dynamic: true, Size: size,
		HasTimeout: forget > 0, Timeout: forget,
	}
	f.sets = append(f.sets, set)
	return set
}

func (f *limitFilter) addChain(name string) *nftables.Chain {
	chain := &nftables.Chain{Table: f.table, Name: name}
	f.chains = append(f.chains, chain)
	return chain
}

func (f *limitFilter) addHook(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	chain, accept := f.addChain(name), nftables.ChainPolicyAccept
	chain.Type, chain.Hooknum, chain.Priority, chain.Policy = nftables.ChainTypeFilter, hook, priority, &accept
	return chain
}

func (f *limitFilter) addRule(chain *nftables.Chain, parts ...[]expr.Any) {
	rule := &nftables.Rule{Table: f.table, Chain: chain}
	for _, part := range parts {
		rule.Exprs = append(rule.Exprs, part...)
	}
	f.rules = append(f.rules, rule)
}

var markOfFew = binary.NativeEndian.AppendUint32(nil, 1)

// Conditions and actions of rules.
var (
	isNewConnection = hasFlags(synAlone)
	// The reset of a new connection has the sequence number 0 (RFC 9293, section 3.5.2), others have a random one.
	isRefusedConnection = append(hasFlags(resetAndAck),
		&expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseTransportHeader, Offset: 4, Len: 4},
		equal(0, 0, 0, 0))
	isRefusedDatagram = []expr.Any{
		&expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		equal(portUnreachableType, portUnreachableCode),
	}
	isRedirect = []expr.Any{
		&expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		equal(redirectType),
	}
	isQuery = isToPort(53)
	// isNewSession matches the first packet that the kernel tracks: it has no entry in the table yet. (Its state
	// would be new until an answer arrives.)
	isNewSession = []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: registerOne},
		&expr.Bitwise{
			SourceRegister: registerOne, DestRegister: registerOne, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, confirmed), Xor: make([]byte, 4),
		},
		equal(0, 0, 0, 0),
	}
	setMark = []expr.Any{
		&expr.Immediate{Register: registerOne, Data: markOfFew},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: registerOne, SourceRegister: true},
	}
	isMarked = []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: registerOne}, equal(markOfFew...)}

	reset       = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	unreachable = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachableCode}}

	source      = &expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	destination = &expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
)

func equal(value ...byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: registerOne, Data: value}
}

func notEqual(value ...byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: registerOne, Data: value}
}

func hasFlags(flags byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{
			SourceRegister: registerOne, DestRegister: registerOne, Len: 1, Mask: []byte{connectionFlags}, Xor: []byte{0},
		},
		equal(flags),
	}
}

func notLoopback(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Key: key, Register: registerOne}, notEqual(name...)}
}

func isIn(address *expr.Payload, subnet netip.Prefix) []expr.Any {
	return append(masked(address, subnet), equal(subnet.Masked().Addr().AsSlice()...))
}

func isNotIn(address *expr.Payload, subnet netip.Prefix) []expr.Any {
	return append(masked(address, subnet), notEqual(subnet.Masked().Addr().AsSlice()...))
}

func masked(address *expr.Payload, subnet netip.Prefix) []expr.Any {
	return []expr.Any{address, &expr.Bitwise{
		SourceRegister: registerOne, DestRegister: registerOne, Len: 4,
		Mask: net.CIDRMask(subnet.Bits(), 32), Xor: make([]byte, 4),
	}}
}

var protocol = &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: registerOne}

func isProtocol(number byte) []expr.Any { return []expr.Any{protocol, equal(number)} }

func isNot(number byte) []expr.Any { return []expr.Any{protocol, notEqual(number)} }

func isFrom(address netip.Addr) []expr.Any { return []expr.Any{source, equal(address.AsSlice()...)} }

func isTo(address netip.Addr) []expr.Any {
	return []expr.Any{destination, equal(address.AsSlice()...)}
}

func isToPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: registerOne, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binary.BigEndian.AppendUint16(nil, port)...),
	}
}

func goTo(chain *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain.Name}}
}

func jumpTo(chain *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain.Name}}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func within(set *nftables.Set, operation uint32, limit expr.Any) []expr.Any {
	return []expr.Any{source, &expr.Dynset{
		SrcRegKey: registerOne, SetName: set.Name, Operation: operation, Exprs: []expr.Any{limit},
	}}
}

func atMost(count int) expr.Any { return &expr.Connlimit{Count: uint32(count)} }

func counted(set *nftables.Set) []expr.Any { return updated(source, set, &expr.Counter{}) }

func updated(address *expr.Payload, set *nftables.Set, what expr.Any) []expr.Any {
	return []expr.Any{address, &expr.Dynset{
		SrcRegKey: registerOne, SetName: set.Name, Operation: unix.NFT_DYNSET_OP_UPDATE, Exprs: []expr.Any{what},
	}}
}

func perSecond(rate, burst int) *expr.Limit {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: uint32(burst)}
}

func burstsOf(connections int) *expr.Limit {
	return perSecond(connections, connectionBurst*connections)
}

func queriesAtOnce(rate int) int { return max(1, rate*queriesInBurst/queriesPerSecond) }

func bytesPerSecond(queries int) *expr.Limit {
	rate := queries * bytesPerQuery
	return &expr.Limit{
		Type: expr.LimitTypePktBytes, Rate: uint64(rate), Unit: expr.LimitTimeSecond,
		Burst: uint32(max(rate, leastBurst)),
	}
}

// installFilter installs a container's tables, remembers the packet filter, and sets the timeouts of connections.
func installFilter(sibling boot.Sibling) error {
	switch {
	case sibling.Limits != nil:
		if err := newLimitFilter(*sibling.Limits).installWithSix(); err != nil {
			return err
		}
	case sibling.Apart != nil:
		if err := newApartFilter(*sibling.Apart).installWithSix(); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := rememberFilter(sibling.Resolver); err != nil || sibling.Limits == nil {
		return err
	}
	return setTimeouts()
}

func (f limitFilter) installWithSix(options ...nftables.ConnOption) error {
	connection, err := openFilter(options)
	if err != nil {
		return err
	}
	if err := requireFilter(connection); err != nil {
		return err
	}
	if err := f.install(f.rules, options); err != nil {
		return fmt.Errorf("limiting agents needs more of nf_tables in the kernel (4.18 or later, with connlimit, ct, limit, "+
			"log, reject and notrack; or its modules, nft_*, can't be loaded, as with kernel.modules_disabled=1): %w", first(err))
	}
	if six := newSixFilter(); hasSix() {
		if err := six.install(six.rules, options); err != nil {
			return fmt.Errorf("dropping IPv6 needs nf_tables for it in the kernel (CONFIG_NF_TABLES_IPV6; or its module can't be "+
				"loaded, as with kernel.modules_disabled=1): %w", first(err))
		}
	}
	return nil
}

// install installs the table with some of its rules in one transaction, in place of an earlier one.
func (f limitFilter) install(rules []*nftables.Rule, options []nftables.ConnOption) error {
	connection, err := openFilter(options)
	if err != nil {
		return err
	}
	connection.AddTable(f.table)
	connection.DelTable(f.table) // deletes an earlier one; it must exist
	connection.AddTable(f.table)
	for _, set := range f.sets {
		if err := connection.AddSet(set, nil); err != nil {
			return err
		}
	}
	for _, chain := range f.chains {
		connection.AddChain(chain)
	}
	for _, rule := range rules {
		connection.AddRule(rule)
	}
	return connection.Flush()
}

const inSix = "IPv6 "

// Refused counts the limits' refusals of one source address.
type Refused struct {
	Source      netip.Addr `json:"source"`
	Connections uint64     `json:"connections"`
	Queries     uint64     `json:"queries"`
	Datagrams   uint64     `json:"datagrams"`
}

// RefusedSources returns the limits' refusals, sorted by source address.
func RefusedSources() ([]Refused, error) {
	bySource := map[netip.Addr]Refused{}
	for _, set := range []string{refusedConnections, refusedQueries, refusedDatagrams} {
		counted, err := counts(set)
		if err != nil {
			return nil, err
		}
		for address, count := range counted {
			refused := bySource[address]
			refused.Source = address
			*map[string]*uint64{
				refusedConnections: &refused.Connections, refusedQueries: &refused.Queries, refusedDatagrams: &refused.Datagrams,
			}[set] = count
			bySource[address] = refused
		}
	}
	return slices.SortedFunc(maps.Values(bySource), func(a, b Refused) int { return a.Source.Compare(b.Source) }), nil
}

func counts(set string) (map[netip.Addr]uint64, error) {
	elements, err := elementsOf(set)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	bySource := map[netip.Addr]uint64{}
	for _, element := range elements {
		key, malformed := keyOf(element)
		expression, unreadable := element.in(unix.NFTA_SET_ELEM_EXPR)
		counter, broken := expression.in(unix.NFTA_EXPR_DATA)
		address, ok := netip.AddrFromSlice(key)
		packets := counter.value(unix.NFTA_COUNTER_PACKETS)
		if !ok || len(packets) != 8 {
			return nil, errors.Join(fmt.Errorf("an unreadable element of %s", set), malformed, unreadable, broken)
		}
		bySource[address] = binary.BigEndian.Uint64(packets)
	}
	return bySource, err
}

// Requirements on the Docker host's kernel. `fwctl requirements` tests them in a temporary container.

const (
	// highAddress is a typical address of Envoy's allocator (tcmalloc tags three bits from bit 42).
	highAddress = 7 << 42
	// watched is the number of inotify instances and watches that Envoy may need. Measurements showed 5 to 11.
	watched = 20
	// filterPatience limits the wait for the packet filter. Without nf_tables, the kernel answers only a
	// transaction's first message. It is also silent while it loads modules.
	filterPatience = 20 * time.Second
)

// Requirements is the output of requirements: a sentence for each missing one.
type Requirements struct {
	Lacking []string `json:"lacking"`
}

// CheckRequirements tests all requirements of Envoy and CoreDNS, in an unused network.
func CheckRequirements() Requirements {
	all := netip.PrefixFrom(netip.IPv4Unspecified(), 24)
	limits := boot.Limits{
		Subnet: all, Except: []netip.Addr{all.Addr()}, Private: []netip.Addr{all.Addr()}, Connections: 1, AllConnections: 4,
		ConnectionsPerSecond: 1, QueriesPerSecond: 1, DatagramsPerSecond: 1,
	}
	requirements := Requirements{Lacking: []string{}}
	filter := newLimitFilter(limits)
	filter.loadModules()
	socket, silent := ListenForRefusals()
	if silent == nil {
		socket.Close()
	}
	_, unrouted := routing.RuleList(unix.AF_INET)
	if unrouted != nil {
		unrouted = fmt.Errorf("routing by source addresses needs policy routing in the kernel (CONFIG_IP_MULTIPLE_TABLES): %w", unrouted)
	}
	for _, err := range []error{filter.installWithSix(), silent, unrouted, askForAddresses(), askForWatches()} {
		if err != nil {
			requirements.Lacking = append(requirements.Lacking, err.Error())
		}
	}
	return requirements
}

// askForAddresses fails in an address space that is smaller than Envoy's allocator assumes, such as 39 bits.
func askForAddresses() error {
	const why = "Envoy needs addresses of 48 bits, and this kernel gives programs fewer (often 39, on single-board computers: " +
		"CONFIG_ARM64_VA_BITS_48)"
	size := uintptr(os.Getpagesize())
	address, _, failure := unix.Syscall6(unix.SYS_MMAP, highAddress, size, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
	if failure == unix.EEXIST {
		return nil
	}
	if failure != 0 {
		return fmt.Errorf("%s: %w", why, failure)
	}
	if _, _, failure := unix.Syscall(unix.SYS_MUNMAP, address, size, 0); failure != 0 {
		return failure
	}
	if address != highAddress { // a kernel older than 4.17 takes it for a hint
		return errors.New(why)
	}
	return nil
}

// askForWatches fails where a user may have fewer inotify instances or watches than Envoy needs. The kernel counts
// per user, so a thread takes an unused user id, and ends with its goroutine.
func askForWatches() error {
	user, err := users.New(users.Readers)
	if err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- watchAs(uintptr(user))
	}()
	return <-done
}

func watchAs(user uintptr) error {
	if _, _, failure := unix.RawSyscall(unix.SYS_SETRESUID, user, user, user); failure != 0 {
		return fmt.Errorf("testing inotify as another user: %w", failure)
	}
	for range watched {
		instance, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("Envoy needs %d inotify instances (`sysctl -w fs.inotify.max_user_instances=128`): %w", watched, err)
		}
		defer unix.Close(instance)
		if _, err := unix.InotifyAddWatch(instance, "/", unix.IN_MOVED_TO); err != nil {
			return fmt.Errorf("Envoy needs %d inotify watches (`sysctl -w fs.inotify.max_user_watches=8192`): %w", watched, err)
		}
	}
	return nil
}

// openFilter returns a connection to the kernel's packet filter, or to a test's. Transactions have a time limit.
func openFilter(options []nftables.ConnOption) (*nftables.Conn, error) {
	if len(options) > 0 {
		return nftables.New(options...)
	}
	bounded := func(connection *netlink.Conn) error {
		return connection.SetReadDeadline(time.Now().Add(filterPatience))
	}
	return nftables.New(nftables.WithSockOptions(bounded))
}

// requireFilter fails if the kernel has no nf_tables at all. It always answers a message outside a transaction.
func requireFilter(connection *nftables.Conn) error {
	if _, err := connection.ListTablesOfFamily(nftables.TableFamilyIPv4); err != nil {
		return fmt.Errorf("limiting agents needs nf_tables in the kernel (CONFIG_NF_TABLES; "+
			"or its module can't be loaded, as with kernel.modules_disabled=1): %w", first(err))
	}
	return nil
}

// first returns the first of joined errors: a kernel refuses each message of a transaction with the same words.
func first(err error) error {
	for joined := (interface{ Unwrap() []error })(nil); errors.As(err, &joined); {
		err = joined.Unwrap()[0]
	}
	return err
}

// loadModules makes the kernel load the rules' modules, in small transactions. The kernel restarts a transaction
// after each module that it loads, and runs modprobe again for the earlier ones: 50 times with all rules in one.
func (f limitFilter) loadModules() {
	if connection, err := openFilter(nil); err == nil && requireFilter(connection) == nil {
		for _, rule := range f.rules {
			_ = f.install([]*nftables.Rule{rule}, nil) // whether all are supported is checked later
		}
	}
}
