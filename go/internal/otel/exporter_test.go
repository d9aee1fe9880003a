package otel

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"clawker-fw/internal/must"
	"clawker-fw/internal/resolver"
)

// exporting returns an exporter that runs until the test ends, and its settings.
func exporting(t *testing.T, settings *Settings) (*Exporter, *atomic.Pointer[Settings]) {
	t.Helper()
	var current atomic.Pointer[Settings]
	current.Store(settings)
	exporter := NewExporter(current.Load)
	go exporter.Run()
	t.Cleanup(func() {
		select {
		case <-exporter.stop:
		default:
			exporter.Close()
		}
	})
	return exporter, &current
}

// adds queues a number of records, and returns their names.
func adds(exporter *Exporter, prefix string, count int) []string {
	var names []string
	for number := range count {
		name := fmt.Sprintf("%s-%d.test", prefix, number)
		exporter.Add(resolver.Outcome{Began: time.Now(), Name: name, Type: 1, Answers: 1})
		names = append(names, name)
	}
	return names
}

// Records arrive in order, in full batches, and are counted as sent.
func TestExport(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	collector := signer.collects(t, "127.0.0.1:0", accepts)
	exporter, _ := exporting(t, signer.settings(t, collector.address))

	want := adds(exporter, "a", 1200)

	must.Happen(t, "all records", func() bool { return exporter.sent.Load() == 1200 })
	if !slices.Equal(collector.names(), want) || exporter.lost.Load() != 0 || len(collector.requests) < 3 {
		t.Errorf("got %d in %d requests, lost %d", len(collector.names()), len(collector.requests), exporter.lost.Load())
	}
}

// The next batch uses new settings, over a new connection, and no record is lost.
func TestExportFollowsSettings(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	collector := signer.collects(t, "127.0.0.1:0", accepts)
	exporter, current := exporting(t, signer.settings(t, collector.address))
	want := adds(exporter, "a", 100)
	must.Happen(t, "the first", func() bool { return exporter.sent.Load() == 100 })

	current.Store(signer.settings(t, collector.address))
	want = append(want, adds(exporter, "b", 100)...)
	must.Happen(t, "more", func() bool { return exporter.sent.Load() == 200 })

	if !slices.Equal(collector.names(), want) || exporter.lost.Load() != 0 || collector.clientCount() != 2 {
		t.Errorf("got %d, lost %d, of %d clients", len(collector.names()), exporter.lost.Load(), collector.clientCount())
	}
	adds(exporter, "c", 10)
	current.Store(nil)
	must.Happen(t, "the last, before it is turned off", func() bool { return exporter.sent.Load() == 210 })
	adds(exporter, "d", 10)
	must.Happen(t, "a loss", func() bool { return exporter.lost.Load() == 10 })
}

// The collector's certificate is known while the settings name this collector, with or without records.
func TestExportNotesTheCollector(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	collector := signer.collects(t, "127.0.0.1:0", accepts)
	exporter, current := exporting(t, signer.settings(t, collector.address))

	must.Happen(t, "a certificate", func() bool { return exporter.shown.Load() != nil })

	shown := exporter.shown.Load()
	if shown == nil || shown.Subject != "CN="+collectorName || !slices.Equal(shown.Names, []string{collectorName}) ||
		shown.Ends-time.Now().Unix() > 3600 || shown.Ends <= time.Now().Unix() || len(shown.Digest) != 64 {
		t.Errorf("got %+v", shown)
	}
	current.Store(nil)
	must.Happen(t, "nothing is known", func() bool { return exporter.shown.Load() == nil })
}

// An old connection is replaced, so that the collector's renewed certificate is noted; no record is lost.
func TestExportConnectsAgain(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	collector := signer.collects(t, "127.0.0.1:0", accepts)
	settings := signer.settings(t, collector.address)
	exporter := NewExporter(func() *Settings { return settings })
	exporter.longest = 10 * time.Millisecond
	go exporter.Run()
	defer exporter.Close()

	want := adds(exporter, "a", 1)
	must.Happen(t, "the first", func() bool { return exporter.sent.Load() == 1 })
	want = append(want, adds(exporter, "b", 1)...)
	must.Happen(t, "more", func() bool { return exporter.sent.Load() == 2 })

	if !slices.Equal(collector.names(), want) || exporter.lost.Load() != 0 || collector.handshakes() < 2 {
		t.Errorf("lost %d, %d handshakes", exporter.lost.Load(), collector.handshakes())
	}
}

// Whatever the collector does, adding never waits, and each record is counted as sent or lost.
func TestExportWithoutCollector(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	silent := must.Open[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	refusing := signer.collects(t, "127.0.0.1:0", func(context.Context) ([]byte, error) {
		return nil, status.Error(codes.Unavailable, "no room")
	})
	partly := signer.collects(t, "127.0.0.1:0", func(context.Context) ([]byte, error) {
		return []byte{0x0a, 0x02, 0x08, 0x03}, nil // 3 rejected
	})
	stopped := signer.collects(t, "127.0.0.1:0", accepts)
	stopped.server.Stop()
	foreign := newAuthority(t).collects(t, "127.0.0.1:0", accepts)
	for what, test := range map[string]struct {
		endpoint string
		lost     uint64
	}{
		"silent":          {silent.Addr().String(), 10},
		"refusing":        {refusing.address, 10},
		"refusing some":   {partly.address, 3},
		"down":            {stopped.address, 10},
		"somebody else's": {foreign.address, 10},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			settings := signer.settings(t, test.endpoint)
			exporter := NewExporter(func() *Settings { return settings })
			exporter.patience = time.Second
			go exporter.Run()
			t.Cleanup(exporter.Close)
			start := time.Now()
			adds(exporter, "a", 10)
			if passed := time.Since(start); passed > 100*time.Millisecond {
				t.Errorf("it took %v", passed)
			}
			must.Happen(t, "an end", func() bool { return exporter.lost.Load()+exporter.sent.Load() == 10 })
			if exporter.lost.Load() != test.lost {
				t.Errorf("lost %d", exporter.lost.Load())
			}
		})
	}
}

// A full queue loses records at once, and counts them.
func TestAddToFullQueue(t *testing.T) {
	exporter := NewExporter(func() *Settings { return nil })
	adds(exporter, "a", longestQueue+10)
	if len(exporter.records) != longestQueue || exporter.lost.Load() != 10 {
		t.Errorf("%d wait, %d are lost", len(exporter.records), exporter.lost.Load())
	}
}

// A collector that returns gets records again within seconds, including the waiting ones.
func TestExportRecovers(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	first := signer.collects(t, "127.0.0.1:0", accepts)
	exporter, _ := exporting(t, signer.settings(t, first.address))
	adds(exporter, "a", 1)
	must.Happen(t, "the first", func() bool { return exporter.sent.Load() == 1 })
	first.server.Stop()
	adds(exporter, "b", 1)
	must.Happen(t, "a loss", func() bool { return exporter.lost.Load() == 1 })

	adds(exporter, "c", 1)
	signer.collects(t, first.address, accepts)
	start := time.Now()

	must.Happen(t, "more", func() bool { return exporter.sent.Load() == 2 })
	if passed := time.Since(start); passed > 5*time.Second {
		t.Errorf("it took %v", passed)
	}
}

// At the end, the waiting records are sent, unless the collector is silent.
func TestClose(t *testing.T) {
	t.Parallel()
	signer := newAuthority(t)
	collector := signer.collects(t, "127.0.0.1:0", accepts)
	exporter, _ := exporting(t, signer.settings(t, collector.address))
	want := adds(exporter, "a", 600)

	exporter.Close()

	if !slices.Equal(collector.names(), want) {
		t.Errorf("got %d", len(collector.names()))
	}
	collector.server.Stop()
	silent := must.Open[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	stuck, _ := exporting(t, signer.settings(t, silent.Addr().String()))
	adds(stuck, "c", 600) // a whole batch, for which a call is made at once
	must.Happen(t, "a call", func() bool { return len(stuck.records) < 600 })
	other, _ := exporting(t, signer.settings(t, collector.address))
	adds(other, "b", 10)
	start := time.Now()
	other.Close()
	stuck.Close()
	if passed := time.Since(start); passed > 2*time.Second || other.lost.Load() != 10 || stuck.lost.Load() != 600 {
		t.Errorf("it took %v, lost %d and %d", passed, other.lost.Load(), stuck.lost.Load())
	}
}
