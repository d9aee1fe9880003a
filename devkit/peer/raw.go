// The verb raw: bytes as they are written, for requests that no client would send.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rawResult is what came back. Whether that is a refusal is for those to say who could have been reached.
type rawResult struct {
	OK    bool     `json:"ok"` // the bytes were sent
	Reply string   `json:"reply"`
	Ended bool     `json:"ended"` // by the other side, before the time was over
	Error *failure `json:"error"`
}

func declareRaw(flags *flag.FlagSet) action {
	bytes := flags.String("hex", "", "the bytes to send, in `HEXADECIMAL`")
	timeout := flags.Duration("timeout", time.Second, "limit for all; an answer that goes on is cut")
	udp := flags.Bool("udp", false, "send a datagram and wait for another one; it is a failure if none comes")
	options := flags.String("options", "", "of the datagram's IP header (RFC 791, section 3.1), in `HEXADECIMAL`")
	name := flags.String("tls", "", "send them in TLS with this server `NAME`, whoever answers")
	pieces := flags.Bool("pieces", false, "send every byte on its own")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		address, err := oneArgument(positional, "ADDRESS:PORT")
		if err != nil {
			return false, err
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return false, usageError(err.Error())
		}
		sent, err := hex.DecodeString(*bytes)
		if err != nil || len(sent) == 0 {
			return false, usageError("expected --hex with bytes")
		}
		header, err := hex.DecodeString(*options)
		if err != nil || (len(header) > 0 && !*udp) {
			return false, usageError("expected --options with bytes, and --udp")
		}
		if *udp && *name != "" {
			return false, usageError("expected --udp or --tls")
		}
		to := destination{host: host, port: port, pieces: *pieces, secure: *name != "", serverName: *name}
		result := rawResult{}
		if *udp {
			result = sendDatagram(ctx, to, sent, header, *timeout)
		} else {
			result = sendRaw(ctx, to, sent, *timeout)
		}
		out.print(result)
		return result.OK, nil
	}
}

func sendRaw(ctx context.Context, to destination, sent []byte, timeout time.Duration) rawResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, _, err := open(ctx, to)
	if err != nil {
		return rawResult{Error: failureOf(err)}
	}
	defer conn.abandon()
	release := conn.within(ctx)
	defer release()
	if _, err := conn.Write(sent); err != nil {
		return rawResult{Error: failureOf(inStage(ctx, stageHTTP, err))}
	}
	var reply head
	_, err = io.Copy(&reply, conn.reader)
	return rawResult{OK: true, Reply: reply.kept.String(), Ended: !errors.Is(err, os.ErrDeadlineExceeded)}
}

// sendDatagram sends one datagram and waits for one. Nobody there is told by the kernel, as for a connection.
func sendDatagram(ctx context.Context, to destination, sent, options []byte, timeout time.Duration) rawResult {
	dialer := &net.Dialer{Control: func(_, _ string, socket syscall.RawConn) (err error) {
		failed := socket.Control(func(socket uintptr) {
			if len(options) > 0 {
				err = unix.SetsockoptString(int(socket), unix.IPPROTO_IP, unix.IP_OPTIONS, string(options))
			}
		})
		return errors.Join(failed, err)
	}}
	conn, err := dialer.DialContext(ctx, "udp", net.JoinHostPort(to.host, to.port))
	if err != nil {
		return rawResult{Error: failureOf(inStage(ctx, stageConnect, err))}
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(timeout))
	reply := make([]byte, shownBody)
	size := 0
	if _, err = conn.Write(sent); err == nil {
		size, err = conn.Read(reply)
	}
	if err != nil {
		return rawResult{Error: failureOf(inStage(ctx, stageConnect, err))}
	}
	return rawResult{OK: true, Reply: string(reply[:size]), Ended: true}
}
