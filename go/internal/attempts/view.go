package attempts

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/arp"
	"clawker-fw/internal/boot"
	"clawker-fw/internal/serving"
	"clawker-fw/internal/volume"
)

// The agents' view: CoreDNS's container is on the agent network, so it sees CoreDNS and Envoy as agents do. It
// requests a name that no rule can allow, and expects an agent's refusal.

// refusedHost is serving.refusedName without the final dot. Neither CoreDNS nor Envoy logs these requests.
const refusedHost = "refused.clawker-fw.invalid"

const refusalWords = "clawker-fw: no rule allows this host"

const (
	answerTimeout = time.Second // for an answer from the same host, on a busy machine
	patience      = time.Second
	viewsAtOnce   = 64
	discard       = 9 // no program listens on this port (RFC 863)
	// portsEachCheck limits the ports of one health check. With more ports, each check tries a random selection.
	portsEachCheck = 32
)

// Entrance is hot/eye/envoy.json: Envoy's address and ports for agents.
type Entrance struct {
	Address netip.Addr `json:"address"`
	Ports   []int      `json:"ports"`
}

func readEntrance(root string) (entrance Entrance, err error) {
	err = volume.ReadJSON(filepath.Join(root, "hot", "eye", "envoy.json"), &entrance)
	return entrance, err
}

// AgentsSee returns the problems that agents see, by firewall container, with Envoy's only on request. Only
// CoreDNS's container can tell. It also returns the containers on the way to which packets are dropped.
func AgentsSee(root string, sibling boot.Sibling, envoy bool) (map[string][]string, []string) {
	if sibling.Service == nil {
		return map[string][]string{}, nil
	}
	views := map[string][]string{"coredns": {}}
	if arp.Claimed(root) {
		views["coredns"] = seenOfResolver(netip.AddrPortFrom(sibling.Service.Address, 53))
	}
	if !envoy {
		return views, nil
	}
	entrance, err := readEntrance(root)
	if err != nil {
		views["envoy"] = []string{"unreadable: " + err.Error()}
		return views, nil
	}
	problems, dropped := seenForAWhile(entrance)
	views["envoy"] = problems
	if dropped {
		return views, []string{"envoy"}
	}
	return views, nil
}

// Seen is the output of see: the problems that agents would have with an Envoy that doesn't serve them yet.
type Seen struct {
	AgentsSee []string `json:"agents_see"`
}

// See checks an Envoy once, before agents are sent to it.
func See(text string) (Seen, error) {
	var entrance Entrance
	if err := json.Unmarshal([]byte(text), &entrance); err != nil {
		return Seen{}, err
	}
	problems, reasons := seenOfEnvoy(entrance)
	problems, _ = onTheWay(entrance, problems, reasons)
	return Seen{problems}, nil
}

// filteredFrames exists where the kernel may filter frames between containers with the Docker host's packet
// filter.
const filteredFrames = "/proc/sys/net/bridge/bridge-nf-call-iptables"

// onTheWay reports whether packets to Envoy are dropped, and adds that to each problem. They are if Envoy's host
// answers ARP, but no port accepts a connection. Envoy's own packet filter is compared elsewhere, so the Docker
// host's drops them. It checks twice, because the first check may have used an outdated MAC address.
func onTheWay(entrance Entrance, problems []string, reasons []error) ([]string, bool) {
	if !unreached(reasons) || !isThere(entrance.Address, patience) {
		return problems, false
	}
	if problems, reasons = seenOfEnvoy(entrance); !unreached(reasons) {
		return problems, false
	}
	because := ""
	if _, err := os.Stat(filteredFrames); err == nil {
		because = ", whose kernel has br_netfilter,"
	}
	explained := []string{}
	for _, problem := range problems {
		explained = append(explained, fmt.Sprintf("%s (the packet filter of the Docker host%s drops what passes between containers)", problem, because))
	}
	return explained, true
}

// unreached reports whether all failures are connections without an answer, and there is at least one.
func unreached(reasons []error) bool {
	return len(reasons) > 0 && !slices.ContainsFunc(reasons, func(err error) bool {
		failure, ok := errors.AsType[*net.OpError](err)
		return !ok || failure.Op != "dial" || !failure.Timeout()
	})
}

// isThere reports whether a host on our networks answers ARP, now or within a time.
func isThere(address netip.Addr, within time.Duration) bool {
	neighbour := func() (netlink.Neigh, bool) {
		entries, _ := netlink.NeighList(0, unix.AF_INET)
		at := slices.IndexFunc(entries, func(entry netlink.Neigh) bool { return entry.IP.Equal(address.AsSlice()) })
		if at < 0 {
			return netlink.Neigh{}, false
		}
		return entries[at], entries[at].State&(unix.NUD_REACHABLE|unix.NUD_PERMANENT) != 0
	}
	if entry, reachable := neighbour(); reachable || entry.IP != nil {
		_ = netlink.NeighDel(&entry) // the entry may be outdated
	}
	connection, err := net.Dial("udp", netip.AddrPortFrom(address, discard).String())
	if err != nil {
		return false
	}
	defer connection.Close()
	if _, err := connection.Write(nil); err != nil {
		return false
	}
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(serving.PollEvery) {
		if _, reachable := neighbour(); reachable {
			return true
		}
	}
	return false
}

// AgentsAreServed is the part of a health check that tries Envoy.
func AgentsAreServed(root string, sibling boot.Sibling) error {
	if sibling.Service == nil {
		return nil
	}
	entrance, err := readEntrance(root)
	if err != nil {
		return err
	}
	rand.Shuffle(len(entrance.Ports), func(i, j int) { entrance.Ports[i], entrance.Ports[j] = entrance.Ports[j], entrance.Ports[i] })
	entrance.Ports = entrance.Ports[:min(len(entrance.Ports), portsEachCheck)]
	if problems, _ := seenForAWhile(entrance); len(problems) > 0 {
		return fmt.Errorf("agents can't use Envoy: %s", strings.Join(problems, "; "))
	}
	return nil
}

func seenOfResolver(server netip.AddrPort) []string {
	problems := []string{}
	for _, transport := range []string{"udp", "tcp"} {
		if err := serving.Refuses(server.String(), transport); err != nil {
			problems = append(problems, fmt.Sprintf("%s over %s: %s", server, transport, reason(err)))
		}
	}
	return problems
}

// seenForAWhile returns the problems with Envoy that persist: an Envoy that has just started, or got another port,
// needs a moment. Without a route there is no point in waiting. It also reports whether packets are dropped.
func seenForAWhile(entrance Entrance) ([]string, bool) {
	for end := time.Now().Add(patience); ; time.Sleep(serving.PollEvery) {
		problems, reasons := seenOfEnvoy(entrance)
		if len(problems) == 0 || time.Now().After(end) || errors.Is(errors.Join(reasons...), syscall.ENETUNREACH) {
			return onTheWay(entrance, problems, reasons)
		}
	}
}

// seenOfEnvoy connects to all ports in parallel, over HTTP and over TLS. It returns the problems and their errors.
func seenOfEnvoy(entrance Entrance) ([]string, []error) {
	var group sync.WaitGroup
	var lock sync.Mutex
	problems, reasons := []string{}, []error{}
	room := make(chan struct{}, viewsAtOnce)
	for _, port := range entrance.Ports {
		place := netip.AddrPortFrom(entrance.Address, uint16(port)).String()
		for protocol, refused := range map[string]func(net.Conn) error{"http": refusedOverHTTP, "https": refusedOverTLS} {
			room <- struct{}{}
			group.Go(func() {
				defer func() { <-room }()
				connection, err := dial("tcp", place, answerTimeout, answerTimeout)
				if err == nil {
					defer connection.Close()
					err = refused(connection)
				}
				if err != nil {
					lock.Lock()
					defer lock.Unlock()
					problems = append(problems, fmt.Sprintf("%s over %s: %s", place, protocol, reason(err)))
					reasons = append(reasons, err)
				}
			})
		}
	}
	group.Wait()
	slices.Sort(problems)
	return problems, reasons
}

func refusedOverHTTP(connection net.Conn) error {
	response, err := exchange(connection, "GET / HTTP/1.1\r\nHost: "+refusedHost+"\r\nConnection: close\r\n\r\n")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden || !begins(response, refusalWords) {
		return fmt.Errorf("status %d, not Envoy's refusal, for a name that no rule allows", response.StatusCode)
	}
	return nil
}

// refusedOverTLS fails unless the handshake is refused because of its server name. A reset may overtake the alert.
func refusedOverTLS(connection net.Conn) error {
	_, _, err := shakeHands(connection, unverified(refusedHost))
	if deniedAccess(err) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err == nil {
		return errors.New("the connection succeeded for a name that no rule allows")
	}
	return err
}
