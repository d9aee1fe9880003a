// Package usage knows what agents have used of what the rules allow: for each name, protocol and port when first and last, and
// how much. It never knows which rule that was: the client decides that, by the rules of the time when it asks.
package usage

import (
	"cmp"
	"container/heap"
	"container/list"
	"crypto/rand"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Below a subtree rule, an agent chooses names. So there is room for mostUses, and when that is full, whichever filter chain
// has the most gives up the one that was not used for the longest time: no agent can have names forgotten that other rules
// allow. What is forgotten is still counted, as the rest of its chain.
const (
	mostUses  = 20_000
	mostRests = 1_000
	// keptFor is how long what is not used any more is remembered.
	keptFor = 366 * 24 * time.Hour
	// mostInherited bounds the ids of those whose knowledge is in this one.
	mostInherited = 64
)

// Use is what is known of one name, protocol and port. Times are in seconds since 1970.
type Use struct {
	Protocol    string `json:"protocol"`
	Name        string `json:"name"`
	Port        uint16 `json:"port"`
	Group       string `json:"group"` // stands for the filter chain of the rule
	First       int64  `json:"first"`
	Last        int64  `json:"last"`
	Connections uint64 `json:"connections"` // that have ended
	Received    uint64 `json:"received"`    // octets from agents in these
	Sent        uint64 `json:"sent"`        // octets to agents in these
}

// Rest is the same of several that are not told apart any more: the one that was forgotten last, and how many there were. One
// that was used again has been counted again.
type Rest struct {
	Use
	Names uint64 `json:"names"`
}

// History is all that is known. Of nothing that was used since then, nothing is missing, but what is in Rest, or counted as
// lost.
type History struct {
	ID        string   `json:"id"`        // no two siblings have the same
	Inherited []string `json:"inherited"` // ids of those that were replaced, and whose knowledge is in this one
	Since     int64    `json:"since"`
	Now       int64    `json:"now"`
	Lost      uint64   `json:"lost"` // lines that could not be read
	Uses      []Use    `json:"uses"`
	Rest      []Rest   `json:"rest"`
}

func (u *Use) place() place { return place{u.Protocol, u.Name, u.Port} }

// and adds what is known of the same from elsewhere.
func (u *Use) and(other Use) {
	u.First, u.Last = min(u.First, other.First), max(u.Last, other.Last)
	u.Connections += other.Connections
	u.Received += other.Received
	u.Sent += other.Sent
}

// Table is what is known, in memory.
type Table struct {
	now  func() time.Time
	own  []netip.Addr
	most int

	mutex     sync.Mutex
	id        string
	inherited []string
	since     int64
	lost      uint64
	changes   uint64
	turn      uint64                   // counts what was used and forgotten: its order, whatever the clock says
	uses      map[string]*list.Element // of *used, in the list of its group
	groups    map[string]*group
	order     order
}

// New returns a table that knows nothing before now. What comes from one of our own addresses is no use.
func New(own []netip.Addr, now func() time.Time) *Table {
	found := &Table{now: now, own: own, most: mostUses, id: rand.Text(), since: now().Unix()}
	found.fill(nil, nil)
	return found
}

// moment returns the time of something that happens now. A clock that was set back does not make it earlier than what is
// known: it would count as forgotten.
func (t *Table) moment() int64 { return max(t.now().Unix(), t.since) }

// used is a use, its group, and the turn in which it was used last.
type used struct {
	Use
	in   *group
	turn uint64
}

// group is what is known of what one filter chain has allowed: its uses, the latest first, and the rest.
type group struct {
	name      string
	uses      *list.List
	rest      *Rest
	forgotten uint64 // the turn in which the rest got its last
	at        int    // in the order
}

// oldest is the turn of the use that was not used for the longest time.
func (g *group) oldest() uint64 { return g.uses.Back().Value.(*used).turn }

// order has the groups with uses: first the one that gives up one when there is no room.
type order []*group

func (o order) Len() int { return len(o) }
func (o order) Less(i, j int) bool {
	if one, other := o[i].uses.Len(), o[j].uses.Len(); one != other {
		return one > other
	}
	return o[i].oldest() < o[j].oldest()
}
func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].at, o[j].at = i, j
}
func (o *order) Push(each any) {
	each.(*group).at = len(*o)
	*o = append(*o, each.(*group))
}
func (o *order) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}

// Take takes a line of Envoy's that begins with Mark. A connection that leads nowhere is no use, and neither is what we have
// tried ourselves; one of these that is kept open is used by others as well, so it is.
func (t *Table) Take(line []byte) {
	found, is := read(line)
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if !is {
		t.lose()
		return
	}
	if !found.led || found.over && slices.Contains(t.own, found.source) {
		return
	}
	now := t.moment()
	element := t.uses[string(found.key)]
	if element == nil {
		where, is := parse(found.key)
		if !is {
			t.lose()
			return
		}
		element = t.insert(Use{Protocol: where.protocol, Name: where.name, Port: where.port, Group: groupOf(found.chain), First: now, Last: now})
	}
	t.changes++
	known := element.Value.(*used)
	known.Last = max(known.Last, now) // the clock may be set back
	if found.over {
		known.and(Use{First: known.First, Connections: 1, Received: found.received, Sent: found.sent})
	}
	t.turn++
	known.turn = t.turn
	known.in.uses.MoveToFront(element)
	heap.Fix(&t.order, known.in.at)
}

func (t *Table) lose() {
	t.lost++
	t.changes++
}

// groupOf stands for a filter chain. Two that have the same share their room.
func groupOf(chain []byte) string {
	sum := fnv.New32a()
	sum.Write(chain)
	return strconv.FormatUint(uint64(sum.Sum32()), 16)
}

// insert adds the latest use, and makes room for it: it is the last that would be forgotten.
func (t *Table) insert(latest Use) *list.Element {
	in := t.group(latest.Group)
	t.turn++
	element := in.uses.PushFront(&used{latest, in, t.turn})
	t.uses[latest.place().key()] = element
	if in.uses.Len() == 1 {
		heap.Push(&t.order, in)
	} else {
		heap.Fix(&t.order, in.at)
	}
	for len(t.uses) > t.most {
		t.forget()
	}
	return element
}

func (t *Table) group(name string) *group {
	found := t.groups[name]
	if found == nil {
		found = &group{name: name, uses: list.New()}
		t.groups[name] = found
	}
	return found
}

// forget gives up the use that is the first to go, and counts it among the rest of its group.
func (t *Table) forget() {
	in := t.order[0]
	last := in.uses.Back()
	gone := in.uses.Remove(last).(*used).Use
	delete(t.uses, gone.place().key())
	if in.uses.Len() == 0 {
		heap.Remove(&t.order, in.at)
	} else {
		heap.Fix(&t.order, in.at)
	}
	t.count(Rest{gone, 1})
}

// count adds to the rest of a group. If too many groups have one, what was used last of one of them is forgotten for good,
// and nothing before is known any more.
func (t *Table) count(more Rest) {
	in := t.group(more.Group)
	t.turn++
	in.forgotten = t.turn
	if in.rest == nil {
		in.rest = &more
		t.bound()
		return
	}
	sum := in.rest.Use
	sum.and(more.Use)
	sum.Protocol, sum.Name, sum.Port = more.Protocol, more.Name, more.Port
	in.rest = &Rest{sum, in.rest.Names + more.Names}
}

func (t *Table) bound() {
	var first *group
	rests := 0
	for _, each := range t.groups {
		if each.rest != nil {
			rests++
			if first == nil || each.forgotten < first.forgotten {
				first = each
			}
		}
	}
	if rests <= mostRests {
		return
	}
	t.since = max(t.since, first.rest.Last+1)
	first.rest = nil
	if first.uses.Len() == 0 {
		delete(t.groups, first.name)
	}
}

// fill replaces all uses.
func (t *Table) fill(uses []Use, rest []Rest) {
	t.uses, t.groups, t.order = map[string]*list.Element{}, map[string]*group{}, nil
	slices.SortFunc(rest, func(one, other Rest) int { return cmp.Compare(one.Last, other.Last) })
	for _, each := range rest {
		t.count(each)
	}
	slices.SortFunc(uses, func(one, other Use) int { return cmp.Compare(one.Last, other.Last) })
	for _, each := range uses {
		t.insert(each)
	}
}

// History returns all that is known, in the order of what it is about.
func (t *Table) History() History {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	return t.history(t.moment() - int64(keptFor/time.Second))
}

// history returns what is known since a time. What is older stays in the table: the clock may be set back.
func (t *Table) history(since int64) History {
	since = max(since, t.since)
	found := History{
		ID: t.id, Inherited: slices.Clone(t.inherited), Since: since, Now: t.moment(), Lost: t.lost,
		Uses: make([]Use, 0, len(t.uses)), Rest: []Rest{},
	}
	if found.Inherited == nil {
		found.Inherited = []string{}
	}
	for _, each := range t.uses {
		if known := each.Value.(*used); known.Last >= since {
			found.Uses = append(found.Uses, known.Use)
		}
	}
	for _, each := range t.groups {
		if each.rest != nil && each.rest.Last >= since {
			found.Rest = append(found.Rest, *each.rest)
		}
	}
	slices.SortFunc(found.Uses, func(one, other Use) int { return one.compare(other) })
	slices.SortFunc(found.Rest, func(one, other Rest) int { return one.compare(other.Use) })
	return found
}

func (u Use) compare(other Use) int {
	return cmp.Or(cmp.Compare(u.Name, other.Name), cmp.Compare(u.Protocol, other.Protocol), cmp.Compare(u.Port, other.Port))
}

// Inherit adds what a sibling knew that this one has replaced. It says whether anything was added: what is known already is
// not counted twice.
func (t *Table) Inherit(other History) bool {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if other.ID == t.id || slices.Contains(t.inherited, other.ID) || slices.Contains(other.Inherited, t.id) {
		return false
	}
	t.restore(other, slices.Concat(t.inherited, other.Inherited, []string{other.ID}))
	return true
}

// Restore begins with what was left on the disk, if anything was.
func (t *Table) Restore(left History) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.id = left.ID
	t.restore(left, left.Inherited)
}

func (t *Table) restore(other History, inherited []string) {
	own := t.history(t.since)
	t.since = other.Since // it is older, whatever the clock said then
	known := map[place]int{}
	uses := own.Uses
	for at, each := range uses {
		known[each.place()] = at
		uses[at].Last = max(each.Last, t.since)
	}
	for at, each := range own.Rest {
		own.Rest[at].Last = max(each.Last, t.since)
	}
	for _, each := range other.Uses {
		where, is := parse([]byte(each.place().key()))
		if !is || len(each.Group) > 8 {
			continue // nothing of ours has written it
		}
		if at, there := known[where]; there {
			uses[at].and(each)
		} else {
			known[where] = len(uses)
			uses = append(uses, each)
		}
	}
	t.inherited = slices.Clone(inherited[max(0, len(inherited)-mostInherited):])
	t.lost += other.Lost
	t.changes++
	t.fill(uses, append(own.Rest, other.Rest...))
}
