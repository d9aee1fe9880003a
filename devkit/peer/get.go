// The verb get: a request as odd as a test needs it, on a new connection.
package main

import (
	"bytes"
	"context"
	"flag"
	"time"
)

// shownBody is how much of a response body is printed, in bytes.
const shownBody = 2048

// untilEvery is the time between two requests of which one is to succeed.
const untilEvery = 10 * time.Millisecond

// getResult is one printed request. Milliseconds run from the first step to the end of the body.
type getResult struct {
	OK           bool     `json:"ok"`
	Status       int      `json:"status"` // 0 without a response
	Milliseconds float64  `json:"ms"`
	Address      string   `json:"address"`
	Error        *failure `json:"error"`
	Body         string   `json:"body"`
}

func declareGet(flags *flag.FlagSet) action {
	var headers repeated
	timeout := flags.Duration("timeout", 5*time.Second, "limit for a request, from lookup to end of body")
	connect := flags.String("connect", "", "dial this `ADDRESS[:PORT]`; Host and SNI stay those of the URL")
	serverName := flags.String("sni", "", "server name to send instead of the URL's; empty sends none")
	host := flags.String("host", "", "Host header instead of the URL's")
	method := flags.String("method", "GET", "request method")
	flags.Var(&headers, "header", "extra header, as it is sent, may be repeated")
	until := flags.Bool("until-ok", false, "repeat it, silently, until one succeeds")
	nameserver := declareServer(flags, "dns-server")
	pieces := flags.Bool("pieces", false, "send every byte on its own")
	behind := flags.String("ech", "", "hide the server name behind this `NAME`, as an origin with the same option lets clients")
	trusted := flags.String("trust", "", "have the host prove its name by these authorities, as `PEM`, or by those of the `system`")

	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		sent, to, err := requestFor(arguments[0])
		if err != nil {
			return false, err
		}
		if err := to.trust(*trusted); err != nil {
			return false, err
		}
		to.dialTo(*connect)
		to.nameserver, to.pieces, to.behind = nameserver(), *pieces, *behind
		if given(flags, "sni") {
			to.serverName = *serverName
		}
		sent.method, sent.headers = *method, headers
		if *host != "" {
			sent.host = *host
		}
		result := get(ctx, to, sent, *timeout)
		for *until && !result.OK && ctx.Err() == nil {
			time.Sleep(untilEvery)
			result = get(ctx, to, sent, *timeout)
		}
		out.print(result)
		return result.OK, nil
	}
}

// get makes one request.
func get(ctx context.Context, to destination, sent request, timeout time.Duration) getResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var body head
	begin := time.Now()
	response, took, finish, err := fetchOnce(ctx, to, sent, &body)
	defer finish()
	result := getResult{
		OK: err == nil, Milliseconds: milliseconds(time.Since(begin)), Address: took.address, Error: failureOf(err),
		Body: body.kept.String(),
	}
	if response != nil {
		result.Status = response.StatusCode
	}
	return result
}

// head keeps the beginning of what is written to it.
type head struct{ kept bytes.Buffer }

func (h *head) Write(data []byte) (int, error) {
	if room := shownBody - h.kept.Len(); room > 0 {
		h.kept.Write(data[:min(room, len(data))])
	}
	return len(data), nil
}
