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

// What one agent can take of a sibling is limited by the kernel, in a table of our own, before the program spends
// anything on it. Each limit is a set of source addresses that the kernel fills itself. Only what a set has room for
// passes: if a set is full, or the kernel has no memory for it, the packet is refused.

const (
	limitTable = "clawker-fw"

	refusedConnections, refusedQueries, refusedDatagrams = "refused-connections", "refused-queries", "refused-datagrams"

	// connectionBurst is how many seconds' worth of connections an agent may begin at once.
	connectionBurst = 2
	// An agent begins a calmPart of its connections a second whatever others do. Beyond that, all agents share the rate of one,
	// and leavingShare times that rate for hosts, of which the Docker host remembers each for two minutes.
	calmPart, leavingShare = 10, 2
	// queriesInBurst in queriesPerSecond may be sent at once. Queries wait in one small buffer of the program's socket
	// (208 KiB by default), from which one agent's must not crowd out those of others.
	queriesInBurst, queriesPerSecond = 2, 5
	// datagramBurst is the part of a second's datagrams that may be sent at once, for the same reason.
	datagramBurst = 10

	// octetsPerQuery is a query over TCP with its headers. The kernel sees segments, not queries, so it counts octets.
	octetsPerQuery = 128
	// leastOctets is the largest segment that the kernel may hand over at once. A smaller burst would never let it pass.
	leastOctets = 1 << 16

	// One part in reservedShare of all connections is reserved for agents that have few: one part in fewShare of all, or less.
	reservedShare, fewShare = 4, 64

	// answersTold to an agent's datagrams are copied to the recorder each second, and so many at once. It may write down
	// fewer (recorder.go), and a flood must not keep copies for other agents from it.
	answersTold = 200

	// tellFor is how long a source address is remembered after its last refusal.
	tellFor = time.Hour

	// forgetAfter is how long a source address is remembered after its last packet. By then its burst is full again.
	forgetAfter = 10 * time.Second
)

// Numbers in packets and in the kernel's interface.
const (
	registerOne = 1

	synAlone, resetAndAck = 0x02, 0x14 // of the flags in connectionFlags
	// connectionFlags are FIN, SYN, RST and ACK: of these, only SYN is set in the first segment of a connection, and RST
	// and ACK in one that refuses it.
	connectionFlags = 0x17

	confirmed = 1 << 3 // the status of a connection in the kernel's table (IPS_CONFIRMED)

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

// newLimitFilter describes the table. Agents are told by addresses in their subnet, not by an interface, so that it holds
// for one that comes later, too. What has another address, or comes by another interface, is dropped by rp_filter.
//
// Connections are checked when they begin, in the chain "receiving": first how many the agent has begun lately, then
// how many it has, then how many there are of all agents. Who begins them too fast gets no answer: its next attempt a
// second later may be in time, and a flood slows itself down. Who has too many gets a reset, so that it sees an error
// at once. Connections that exist are never touched. When there are many of all agents, only those that have few get
// another one, so that it is the newest of the heaviest that is refused. Queries over UDP are checked in "arriving",
// before the kernel tracks them as connections, and dropped.
//
// New connections to hosts, and sessions of UDP, are limited in "connecting" for all agents together: agents must not fill the
// Docker host's table. The kernel sends the first segment of a dropped one again a second later.
//
// Redirects are dropped: a neighbour must not change our routes. The kernel's setting against them can't be relied on,
// because another one switches it on (inet_forward_change).
//
// What is refused is counted for each source address, in rules of their own: a rule that can't count ends there, and must
// not keep the next one from refusing.
//
// A connection or datagram of anybody else to an address or a port that only those without limits may use ends as at a closed one. It
// has counted as one that was begun by then.
//
// The subnet's addresses are for agents alone: what arrives for one of them from another source is dropped. Without that,
// a neighbour on the way out could route packets here, because the kernel accepts those for any of its addresses.
//
// A session of UDP counts as a connection: the first datagram between two ports is checked like the first segment of one,
// and dropped if it is refused. How many datagrams an agent sends is limited before that.
//
// Nothing else of agents is tracked, and UDP only where its sessions are limited: an agent could fill the kernel's table
// of connections, which is for all.
//
// What the kernel answers when it refuses something is copied in "telling", for the recorder (recorder.go): resets of
// connections that have not begun, and messages that nobody listens on a port. It answers each datagram (icmp_ratemask),
// and beyond a rate for each agent, answers are counted instead of copied.
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
		octets := f.addSet("octets", size, forgetAfter)
		refused := f.addSet(refusedQueries, size, tellFor)
		asking, sending := f.addChain("asking"), f.addChain("sending")
		f.addRule(arriving, from, isProtocol(unix.IPPROTO_UDP), isQuery, jumpTo(asking))
		f.limitRate(asking, queries, refused, perSecond(limits.QueriesPerSecond, queriesAtOnce(limits.QueriesPerSecond)))
		f.addRule(receiving, from, isProtocol(unix.IPPROTO_TCP), isQuery, goTo(sending))
		f.addRule(sending, within(octets, unix.NFT_DYNSET_OP_UPDATE, octetsPerSecond(limits.QueriesPerSecond)),
			verdict(expr.VerdictAccept))
		f.addRule(sending, verdict(expr.VerdictDrop))
	}
	telling := f.addChain("telling")
	for _, address := range limits.Except {
		f.addRule(telling, isTo(address), verdict(expr.VerdictReturn))
	}
	f.addRule(telling, []expr.Any{&expr.Log{
		Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: refusalGroup, Snaplen: refusalOctets,
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

// newSixFilter describes our table for IPv6, which nobody uses here: whoever gives a sibling an address or a route of it opens
// no way.
func newSixFilter() limitFilter {
	f := limitFilter{table: &nftables.Table{Name: limitTable, Family: nftables.TableFamilyIPv6}}
	arriving := f.addHook("arriving", nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	leaving := f.addHook("leaving", nftables.ChainHookOutput, nftables.ChainPriorityRaw)
	f.addRule(arriving, notLoopback(expr.MetaKeyIIFNAME), verdict(expr.VerdictDrop))
	f.addRule(leaving, notLoopback(expr.MetaKeyOIFNAME), verdict(expr.VerdictDrop))
	return f
}

// newApartFilter describes the table of a relay: on each of its networks there is one address that it has to do with. What
// comes from others, or would go to them, is dropped before the kernel tracks it: agents and other relays neither reach it nor
// fill its table of connections, and it reaches none of them. Its agent begins no connection with it, and sends nothing but
// segments of TCP.
//
// The engine could keep relays apart as well (enable_icc=false). But for that it switches br_netfilter on, for all bridges of
// the machine: the kernel would track whatever agents send to anybody, and one of them could fill the machine's own table.
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
	// A reset of what has not begun has the sequence number 0 (RFC 9293, section 3.5.2), others have a random one.
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
	// isNewSession is true for the first packet that the kernel tracks: it has no entry in the table yet. (Its state
	// would be new until there is an answer.)
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

func octetsPerSecond(queries int) *expr.Limit {
	rate := queries * octetsPerQuery
	return &expr.Limit{
		Type: expr.LimitTypePktBytes, Rate: uint64(rate), Unit: expr.LimitTimeSecond,
		Burst: uint32(max(rate, leastOctets)),
	}
}

// installFilter installs the tables of a sibling or a relay, remembers the packet filter, and sets the timeouts of connections
// that count.
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
		return fmt.Errorf("limiting what agents can take needs more of nf_tables in the kernel (4.18 or later, with connlimit, ct, limit, "+
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

// install installs the table with some of its rules, in place of one from an earlier start, in one transaction.
func (f limitFilter) install(rules []*nftables.Rule, options []nftables.ConnOption) error {
	connection, err := openFilter(options)
	if err != nil {
		return err
	}
	connection.AddTable(f.table)
	connection.DelTable(f.table) // which must exist
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

// Refused is what the limits have refused of one source address.
type Refused struct {
	Source      netip.Addr `json:"source"`
	Connections uint64     `json:"connections"`
	Queries     uint64     `json:"queries"`
	Datagrams   uint64     `json:"datagrams"`
}

// RefusedSources returns what the limits have refused, sorted by source address.
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
			return nil, errors.Join(fmt.Errorf("an element of %s can't be read", set), malformed, unreadable, broken)
		}
		bySource[address] = binary.BigEndian.Uint64(packets)
	}
	return bySource, err
}

// What a sibling needs of the kernel of the engine's machine, beyond what the engine says of it. `fwctl requirements` asks
// for all of it in a container of its own, which is removed afterwards.

const (
	// highAddress is one of those at which Envoy's allocator places memory (tcmalloc: three bits from bit 42 on are a tag).
	highAddress = 7 << 42
	// watched is how many inotify instances, and watches, Envoy may need: it was measured with 5 to 11.
	watched = 20
	// filterPatience bounds how long the kernel may be silent about the packet filter. Without nf_tables, it answers the
	// first message of a transaction and never those that follow. It is silent as well while it loads modules.
	filterPatience = 20 * time.Second
)

// Requirements is the output of requirements: what is missing, a sentence each.
type Requirements struct {
	Lacking []string `json:"lacking"`
}

// CheckRequirements asks for all that either sibling needs, in a network that nobody uses.
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

// askForAddresses fails in an address space that is smaller than Envoy's allocator assumes: 39 bits on many kernels for
// single-board computers.
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
	if address != highAddress { // a kernel older than 4.17 takes it for a wish
		return errors.New(why)
	}
	return nil
}

// askForWatches fails where a user may have fewer inotify instances or watches than Envoy needs for the files that it reads
// again. The kernel counts them for each user: so a thread becomes one that nobody else is, and ends with its goroutine.
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
		return fmt.Errorf("asking for inotify as another user: %w", failure)
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

// openFilter returns a connection to the kernel's packet filter, or one with options of a test. Each transaction of the
// kernel's is bounded.
func openFilter(options []nftables.ConnOption) (*nftables.Conn, error) {
	if len(options) > 0 {
		return nftables.New(options...)
	}
	bounded := func(connection *netlink.Conn) error {
		return connection.SetReadDeadline(time.Now().Add(filterPatience))
	}
	return nftables.New(nftables.WithSockOptions(bounded))
}

// requireFilter fails if the kernel has no nf_tables at all. One message outside of a transaction is always answered.
func requireFilter(connection *nftables.Conn) error {
	if _, err := connection.ListTablesOfFamily(nftables.TableFamilyIPv4); err != nil {
		return fmt.Errorf("limiting what agents can take needs nf_tables in the kernel (CONFIG_NF_TABLES; "+
			"or its module can't be loaded, as with kernel.modules_disabled=1): %w", first(err))
	}
	return nil
}

// first returns the first of several errors: a kernel refuses each message of a transaction, in the same words.
func first(err error) error {
	for joined := (interface{ Unwrap() []error })(nil); errors.As(err, &joined); {
		err = joined.Unwrap()[0]
	}
	return err
}

// loadModules has the kernel load the modules of the rules, in small transactions. It begins a transaction anew after each
// module that it has loaded, and runs modprobe again for those before: 50 times for all of them in one.
func (f limitFilter) loadModules() {
	if connection, err := openFilter(nil); err == nil && requireFilter(connection) == nil {
		for _, rule := range f.rules {
			_ = f.install([]*nftables.Rule{rule}, nil) // whether it takes them all is asked for afterwards
		}
	}
}
