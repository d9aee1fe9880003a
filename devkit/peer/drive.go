// The verb drive: as many requests as a way carries, to compare ways.
//
// The loop is closed: each client begins its next request when the last one has ended. So this says what a way carries,
// and not how long an agent waits while something is broken, which is for the verb load.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"net"
	"slices"
	"sync"
	"time"
)

type driveSummary struct {
	Requests int            `json:"requests"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors"`
	Bytes    int64          `json:"bytes"` // of bodies
	Seconds  float64        `json:"seconds"`
	P50      float64        `json:"p50_ms"` // of requests that succeeded, with their connection if it was a new one
	P99      float64        `json:"p99_ms"`
}

func declareDrive(flags *flag.FlagSet) action {
	clients := flags.Int("clients", 8, "how many make requests at the same time")
	seconds := flags.Float64("seconds", 3, "for how long to begin requests")
	kept := flags.Bool("kept", false, "make the requests of a client on one connection")
	trusted := flags.String("trust", "", "have the host prove its name by these authorities, as `PEM`")
	connect := flags.String("connect", "", "dial this `ADDRESS[:PORT]`; Host and SNI stay those of the URL")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request")
	nameserver := declareServer(flags, "dns-server")

	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		location, err := oneArgument(positional, "URL")
		if err != nil {
			return false, err
		}
		if *clients < 1 || !(*seconds > 0) {
			return false, usageError("clients and seconds must be positive")
		}
		sent, to, err := requestFor(location)
		if err != nil {
			return false, err
		}
		to.nameserver = nameserver()
		if *trusted != "" {
			to.trusted = x509.NewCertPool()
			if !to.trusted.AppendCertsFromPEM([]byte(*trusted)) {
				return false, errors.New("no authority in the PEM")
			}
		}
		if *connect != "" {
			to.host, to.port, _ = net.SplitHostPort(withDefaultPort(*connect, to.port))
		}
		summary := drive(ctx, driver{sent, to, *kept, *timeout}, *clients, time.Duration(*seconds*float64(time.Second)))
		out.print(summary)
		return summary.Failed == 0, nil
	}
}

type driver struct {
	sent    request
	to      destination
	kept    bool
	timeout time.Duration
}

// counted adds up the octets of bodies.
type counted int64

func (c *counted) Write(octets []byte) (int, error) {
	*c += counted(len(octets))
	return len(octets), nil
}

func drive(ctx context.Context, each driver, clients int, limit time.Duration) driveSummary {
	summary := driveSummary{Errors: map[string]int{}}
	var took []time.Duration
	var mutex sync.Mutex
	var running sync.WaitGroup
	begin := time.Now()
	end := begin.Add(limit)
	for range clients {
		running.Go(func() {
			own, errors, octets := each.repeat(ctx, end)
			mutex.Lock()
			defer mutex.Unlock()
			took = append(took, own...)
			summary.Bytes += int64(octets)
			for kind, count := range errors {
				summary.Errors[kind] += count
				summary.Failed += count
			}
		})
	}
	running.Wait()
	summary.Seconds = time.Since(begin).Seconds()
	summary.Requests = len(took) + summary.Failed
	slices.Sort(took)
	summary.P50, summary.P99 = milliseconds(percentile(took, 50)), milliseconds(percentile(took, 99))
	return summary
}

// repeat makes one client's requests until the end.
func (d driver) repeat(ctx context.Context, end time.Time) (took []time.Duration, errors map[string]int, octets counted) {
	errors = map[string]int{}
	var conn *connection
	for ctx.Err() == nil && time.Now().Before(end) {
		begin := time.Now()
		err := d.once(ctx, &conn, &octets)
		if err == nil {
			took = append(took, time.Since(begin))
		} else {
			errors[kindOf(err)]++
		}
		if conn != nil && (err != nil || !d.kept) {
			conn.abandon() // with a farewell, a client would wait for the other end
			conn = nil
		}
	}
	if conn != nil {
		conn.abandon()
	}
	return took, errors, octets
}

// once makes a request, on a new connection if there is none.
func (d driver) once(ctx context.Context, conn **connection, octets *counted) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if *conn == nil {
		opened, _, err := open(ctx, d.to)
		if err != nil {
			return err
		}
		*conn = opened
	}
	_, err := (*conn).fetch(ctx, d.sent, octets)
	return err
}
