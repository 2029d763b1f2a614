# Chooses the slot and boots it. CONFIG_BOOTCOMMAND sets devtype and devnum (mmc 0, virtio 0) and runs this.
#
# BOOT_ORDER and BOOT_x_LEFT are RAUC's. A good slot has 9 tries and a new one 3 (system.conf), as RAUC gives them back
# with each boot that ends well: nine power cuts in a row, each within the first minute, cost a good slot its turn, and
# then the other one runs. RAUC writes the numbers in hex: more than 9 would be read wrong here.
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 9
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 9

setenv slot
for candidate in ${BOOT_ORDER}; do
  if test -n "${slot}"; then
    true
  elif test "${candidate}" = "A"; then
    if test ${BOOT_A_LEFT} -gt 0; then
      setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1
      setenv slot A
      setenv half a
    fi
  elif test "${candidate}" = "B"; then
    if test ${BOOT_B_LEFT} -gt 0; then
      setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1
      setenv slot B
      setenv half b
    fi
  fi
done

if test -z "${slot}"; then
  # Never given up: both slots get their turns again, the one that ran last first.
  echo "fieldgate: no slot has tries left; all over again"
  setenv BOOT_A_LEFT 3
  setenv BOOT_B_LEFT 3
  saveenv
  reset
fi
echo "fieldgate: slot ${slot}, order ${BOOT_ORDER}, tries left A ${BOOT_A_LEFT} B ${BOOT_B_LEFT}"
# The try is counted on flash before anything of the slot is read: whatever hangs from here on has been counted.
saveenv

# The Raspberry Pi's firmware tells the kernel about the board in the device tree's arguments; elsewhere there are none.
setenv bootargs
fdt addr ${fdt_addr}
fdt get value bootargs /chosen bootargs

# The slot's kernel and the figures of its root, which the kernel verifies block by block as it reads them.
setenv root_hash
if part number ${devtype} ${devnum} boot-${half} boot_part; then
  if load ${devtype} ${devnum}:${boot_part} ${loadaddr} slot.env; then
    env import -t ${loadaddr} ${filesize} data_sectors data_blocks root_hash salt
  fi
fi
if test -n "${root_hash}"; then
  setenv root PARTLABEL=root-${half}
  setenv verity "root,,0,ro,0 ${data_sectors} verity 1 ${root} ${root} 4096 4096 ${data_blocks} ${data_blocks} sha256 ${root_hash} ${salt} 1 restart_on_corruption"
  setenv bootargs "${bootargs} dm-mod.waitfor=${root} dm-mod.create=\"${verity}\" root=/dev/dm-0 rootfstype=squashfs ro rauc.slot=${slot} panic=5 watchdog.open_timeout=120"
  echo "fieldgate: ${bootargs}"
  if load ${devtype} ${devnum}:${boot_part} ${kernel_addr_r} Image; then
    booti ${kernel_addr_r} - ${fdt_addr}
  fi
fi
echo "fieldgate: slot ${slot} cannot be booted"
reset
