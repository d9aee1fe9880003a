// The verb download: one response to its end, to see whether anything cuts it.
package main

import (
	"context"
	"errors"
	"flag"
	"time"
)

type downloadResult struct {
	OK       bool     `json:"ok"`
	Bytes    int64    `json:"bytes"`
	Expected *int64   `json:"expected"` // Content-Length; null without one
	Seconds  float64  `json:"seconds"`
	Error    *failure `json:"error"`
}

var errNoLength = errors.New("the response doesn't say how long it is")

func declareDownload(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", time.Minute, "limit for everything")
	nameserver := declareServer(flags, "dns-server")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		location, err := oneArgument(positional, "URL")
		if err != nil {
			return false, err
		}
		sent, to, err := requestFor(location)
		if err != nil {
			return false, err
		}
		to.nameserver = nameserver()
		result := download(ctx, to, sent, *timeout)
		out.print(result)
		return result.OK, nil
	}
}

func download(ctx context.Context, to destination, sent request, timeout time.Duration) downloadResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var received counter
	begin := time.Now()
	response, _, finish, err := fetchOnce(ctx, to, sent, &received)
	result := downloadResult{Bytes: int64(received), Seconds: time.Since(begin).Seconds()}
	finish()
	switch {
	case response == nil:
	case response.ContentLength >= 0:
		result.Expected = &response.ContentLength
	case err == nil:
		err = errNoLength
	}
	result.OK, result.Error = err == nil, failureOf(err)
	return result
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(data []byte) (int, error) {
	*c += counter(len(data))
	return len(data), nil
}
