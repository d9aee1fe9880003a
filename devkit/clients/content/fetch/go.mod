module clawker-fw/fetch

go 1.26.0
