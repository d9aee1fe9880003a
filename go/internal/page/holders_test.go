package page

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// The kernel knows who has an address, and since when that is another one. It knows no holder of other networks' addresses.
func TestHoldersAreThoseOfTheKernel(t *testing.T) {
	nettest.InNetwork(t)
	link, at := nettest.Link(t, "agents"), time.Now()
	holders := NewHolders(nettest.AgentNet)
	holders.now = func() time.Time { return at }
	if found, err := holders.hardwareOf(nettest.Agent); err == nil {
		t.Errorf("nobody has %s", found)
	}
	for number, hardware := range []string{first, first, second, first} {
		parsed := must.Get[net.HardwareAddr](t)(net.ParseMAC(hardware))
		must.Succeed(t, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, State: netlink.NUD_REACHABLE, IP: nettest.Agent.AsSlice(), HardwareAddr: parsed,
		}))
		at = at.Add(time.Minute)
		if found, err := holders.hardwareOf(nettest.Agent); err != nil || found != hardware {
			t.Errorf("%s, %v", found, err)
		}
		found, known := holders.of(nettest.Agent)
		if !known || found.hardware != hardware || found.since.IsZero() != (number < 2) || number >= 2 && !found.since.Equal(at) {
			t.Errorf("%d: %+v, %t", number, found, known)
		}
	}
	if _, known := holders.of(nettest.Gateway); known {
		t.Error("who is no agent is known")
	}
}
