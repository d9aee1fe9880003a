package page

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

var ofThread = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}

func capabilities(t *testing.T) (found [2]unix.CapUserData) {
	t.Helper()
	must.Succeed(t, unix.Capget(&ofThread, &found[0]))
	return found
}

func setCapabilities(t *testing.T, wanted [2]unix.CapUserData) {
	t.Helper()
	must.Succeed(t, unix.Capset(&ofThread, &wanted[0]))
}

// The kernel's news about neighbours are followed, and it is asked about one that is not known.
func TestHoldersFollowTheKernel(t *testing.T) {
	nettest.InNetwork(t)
	link := must.Get[netlink.Link](t)(netlink.LinkByName("agents"))
	set := func(hardware string) {
		t.Helper()
		parsed := must.Get[net.HardwareAddr](t)(net.ParseMAC(hardware))
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_REACHABLE, IP: nettest.Agent.AsSlice(), HardwareAddr: parsed,
		}); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := hardwareOf(nettest.Agent); err == nil {
		t.Errorf("nobody has %s", found)
	}
	set(first)
	if found, err := hardwareOf(nettest.Agent); err != nil || found != first {
		t.Errorf("%s, %v", found, err)
	}
	holders := NewHolders(nettest.AgentNet)
	holders.ask = func(netip.Addr) (string, error) { return "", errors.New("not asked") }
	// As the recorder does: without any privilege.
	all := capabilities(t)
	setCapabilities(t, [2]unix.CapUserData{{Permitted: all[0].Permitted}, {Permitted: all[1].Permitted}})
	news, end, err := holders.begin()
	setCapabilities(t, all)
	must.Succeed(t, err)
	if found, known := holders.of(nettest.Agent); !known || found.hardware != first || !found.since.IsZero() {
		t.Errorf("at first: %+v", found)
	}
	heard := make(chan struct{})
	go func() {
		holders.hear(news)
		close(heard)
	}()
	for _, wanted := range []string{first, second, first} {
		set(wanted)
		must.Happen(t, wanted, func() bool {
			found, known := holders.of(nettest.Agent)
			return known && found.hardware == wanted
		})
	}
	if found, _ := holders.of(nettest.Agent); found.since.IsZero() || time.Since(found.since) > time.Minute {
		t.Errorf("since %s", found.since)
	}
	end()
	select {
	case <-heard:
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
	if _, known := holders.of(nettest.Gateway); known {
		t.Error("who is no agent is known")
	}
}
