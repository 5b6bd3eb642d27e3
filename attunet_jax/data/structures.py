"""The structures that TotalSegmentator names, and their values in its label maps."""

# Of version 2, class map "total", from value 1 on.
STRUCTURES = (
    *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach"),
    *("pancreas", "adrenal_gland_right", "adrenal_gland_left"),
    *("lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right"),
    *("lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea"),
    *("thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder"),
    *("prostate", "kidney_cyst_left", "kidney_cyst_right", "sacrum"),
    *(f"vertebrae_{name}" for name in ("S1", "L5", "L4", "L3", "L2", "L1")),
    *(f"vertebrae_T{number}" for number in range(12, 0, -1)),
    *(f"vertebrae_C{number}" for number in range(7, 0, -1)),
    *("heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk"),
    *("subclavian_artery_right", "subclavian_artery_left"),
    *("common_carotid_artery_right", "common_carotid_artery_left"),
    *("brachiocephalic_vein_left", "brachiocephalic_vein_right"),
    *("atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava"),
    *("portal_vein_and_splenic_vein", "iliac_artery_left", "iliac_artery_right"),
    *("iliac_vena_left", "iliac_vena_right", "humerus_left", "humerus_right"),
    *("scapula_left", "scapula_right", "clavicula_left", "clavicula_right"),
    *("femur_left", "femur_right", "hip_left", "hip_right", "spinal_cord"),
    *("gluteus_maximus_left", "gluteus_maximus_right", "gluteus_medius_left"),
    *("gluteus_medius_right", "gluteus_minimus_left", "gluteus_minimus_right"),
    *("autochthon_left", "autochthon_right", "iliopsoas_left", "iliopsoas_right"),
    *("brain", "skull"),
    *(f"rib_left_{number}" for number in range(1, 13)),
    *(f"rib_right_{number}" for number in range(1, 13)),
    *("sternum", "costal_cartilages"),
)
STRUCTURE_VALUES = {name: value for value, name in enumerate(STRUCTURES, start=1)}
