module github.com/kferry/kferry/deploy/check

go 1.26.8
