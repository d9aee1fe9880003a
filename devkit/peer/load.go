// The verb load: agents that never wait for each other.
//
// The loop is open. Request i begins at start + i/rate, whatever became of those before it, and its latency counts
// from that moment even if the peer itself was late. A closed loop would stop asking exactly while nobody answers, and
// so hide the outage (coordinated omission). What the requests met is added up in tally.go.
package main

import (
	"context"
	"flag"
	"io"
	"math"
	"strings"
	"sync"
	"time"
)

// agentRequest is one of the requests that take turns. With anyLabel in its host, each is for a name of its own.
type agentRequest struct {
	url  string
	sent request
	to   destination
}

// once is the request as it is made one time.
func (r agentRequest) once() agentRequest {
	if strings.Contains(r.to.host, anyLabel) {
		label := randomLabel()
		for _, field := range []*string{&r.url, &r.sent.host, &r.to.host, &r.to.serverName} {
			*field = strings.Replace(*field, anyLabel, label, 1)
		}
	}
	return r
}

func declareLoad(flags *flag.FlagSet) action {
	rate := flags.Float64("rate", 200, "requests per second; each leaves a port in TIME_WAIT for 60 s")
	seconds := flags.Float64("seconds", 10, "how long to begin requests; 0 is until SIGTERM")
	timeout := flags.Duration("timeout", 5*time.Second, "limit for each request, from lookup to end of body")
	nameserver := declareServer(flags, "dns-server")

	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		if len(positional) == 0 {
			return false, usageError("expected at least one URL")
		}
		if !(*rate > 0 && *seconds >= 0) {
			return false, usageError("the rate must be positive, the seconds not negative")
		}
		var requests []agentRequest
		for _, location := range positional {
			location = strings.Replace(location, "//*.", "//"+anyLabel+".", 1)
			sent, to, err := requestFor(location)
			if err != nil {
				return false, err
			}
			to.nameserver = nameserver()
			requests = append(requests, agentRequest{location, sent, to})
		}
		summary := load(ctx, requests, *rate, *seconds, *timeout, out)
		out.print(summary)
		return summary.Failed == 0, nil
	}
}

// load begins requests until the time is over or ctx is done, waits for those that are under way, and adds them up.
func load(
	ctx context.Context, requests []agentRequest, rate, seconds float64, timeout time.Duration, out *printer,
) summary {
	tally := newTally()
	start := time.Now()
	stopProgress := everySecond(func(second int) { out.print(tally.progress(second)) })

	// The signal ends the beginning of requests, not the requests.
	requestContext := context.WithoutCancel(ctx)
	var underWay sync.WaitGroup
	schedule(ctx, start, rate, seconds, func(i int, due time.Duration) {
		tally.begin()
		underWay.Go(func() {
			attempt(requestContext, requests[i%len(requests)].once(), start, due, timeout, tally)
		})
	})
	end := time.Since(start)
	underWay.Wait()
	stopProgress()
	return tally.summary(rate, end)
}

// schedule calls begin for each request when it is due, and at once for those it is late with.
func schedule(
	ctx context.Context, start time.Time, rate, seconds float64, begin func(i int, due time.Duration),
) {
	total := int(math.Ceil(rate*seconds - 1e-9))
	for i := 0; (seconds == 0 || i < total) && ctx.Err() == nil; i++ {
		due := time.Duration(float64(i) / rate * float64(time.Second))
		if early := due - time.Since(start); early > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(early):
			}
		}
		begin(i, due)
	}
}

// attempt makes one request. The connection is closed after the result is in: goodbyes are no latency.
func attempt(
	ctx context.Context, request agentRequest, start time.Time, due, timeout time.Duration, tally *tally,
) {
	lag := time.Since(start) - due
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, took, finish, err := fetchOnce(ctx, request.to, request.sent, io.Discard)
	tally.finish(outcome{
		url: request.url, due: due, finished: time.Since(start), lag: lag, dns: took.dns, connect: took.connect, err: err,
	})
	finish()
}

// everySecond calls report once a second, counting from 1, until stop has returned.
func everySecond(report func(second int)) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for second := 1; ; second++ {
			select {
			case <-stopping:
				return
			case <-ticker.C:
				report(second)
			}
		}
	}()
	return func() {
		close(stopping)
		<-stopped
	}
}
