# Makes and grows the data partition (systemd/image/repart-data.conf).
PACKAGECONFIG:append:fieldgate = " repart openssl"
