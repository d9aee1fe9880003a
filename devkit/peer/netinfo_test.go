package main

import (
	"os"
	"testing"
)

const routeHeader = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"

// A default route has destination and mask zero and doesn't reject.
func TestParseRoutes(t *testing.T) {
	const connected = "eth0\t0010AC0A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n"
	const throughGateway = "eth0\t00000000\t0110AC0A\t0003\t0\t0\t0\t" // and the mask
	for name, test := range map[string]struct {
		table, gateway string
		isDefault      bool
	}{
		"no route at all": {routeHeader, "", false},
		"connected only":  {routeHeader + connected, "", false},
		"gateway":         {routeHeader + throughGateway + "00000000\t0\t0\t0\n" + connected, "10.172.16.1", true},
		"rejecting":       {routeHeader + "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n", "", false},
		"half of all":     {routeHeader + throughGateway + "00000080\t0\t0\t0\n", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseRoutes(test.table)
			if err != nil || got.Default != test.isDefault || (got.Gateway != nil) != test.isDefault ||
				got.Gateway != nil && *got.Gateway != test.gateway {
				t.Errorf("%+v, error %v", got, err)
			}
		})
	}
}

// The effective capabilities are not confused with the permitted or the ambient ones.
func TestParseCapabilities(t *testing.T) {
	const status = "Name:\tpeer\nCapPrm:\t000001ffffffffff\nCapEff:\t00000000a80425fb\nCapAmb:\t0000000000000000\n"
	if got, err := parseCapabilities(status); err != nil || got != 0xa80425fb {
		t.Errorf("%x, error %v", got, err)
	}
	if _, err := parseCapabilities("Name:\tpeer\n"); err == nil {
		t.Error("capabilities out of nothing")
	}
}

// The answer is about this machine.
func TestNetinfo(t *testing.T) {
	want, err := os.ReadFile(resolvConf)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if got := runFor[netinfo](t, exitDone, "netinfo"); got.ResolvConf != string(want) || got.Addresses == nil {
		t.Errorf("%+v", got)
	}
}
